"""Example programs to read and copy. `python -m musicapi_async.examples.service` is a back end."""
