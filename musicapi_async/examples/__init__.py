"""Programs to start from: read them, copy them. `python -m musicapi_async.examples.service` is a back end."""
