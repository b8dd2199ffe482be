"""Everything that touches the network: one call from request to result, its rate, and downloads.

| module | holds |
| --- | --- |
| `call` | one call from its request to its result: the order of all steps |
| `paid_call` | a paid call under way: its reservation, and what its end means for money |
| `call_entry` | the job store as a paid call sees it, and writes that outlive their caller |
| `attempts` | the attempt loop under the rate; `Transport` is the seam below it |
| `session` | one attempt over aiohttp, and the connections of an event loop |
| `time_limits`, `wait_reasons` | the limit of an attempt; the waits before it, for logs and errors |
| `rate_limiter`, `rate_window` | queues and slots of each lane; the arithmetic of its rate |
| `permits` | the cap on tasks in flight |
| `batch_call` | `sonic.create_batch`: several tasks in one call; other batches are in `workflows` |
| `observer` | the events of hooks, and DEBUG lines |
| `publishing` | links of local files, by the client's `uploader` |
| `download` | files, whole or not at all: retries, Range requests that resume |
| `partial_file` | a file on its way, and whether it may be resumed |
| `finished_file` | the checks of a file that came, its tags, its name |
| `links`, `media_requests` | the links of a value; requests to the hosts of files |
| `private_addresses` | addresses that a back end refuses to download from |
| `audio_tags` | tags in audio files |
"""
