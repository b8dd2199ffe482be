"""Pure rules of the wire: no I/O and no clock.

| module | holds |
| --- | --- |
| `prepare` | the request of an operation or of a bare path, checked and encoded |
| `codec` | JSON in and out, with repairs |
| `response` | a response, the words in it, and the error that it is |
| `retry` | which failure is sent again, and after how long; Retry-After |
| `charge_verdict` | what the end of a paid call means for money |
| `call_reply`, `batch_reply`, `batch_states` | the reply to a call, to `create_batch`, to `get_batch` |
| `poll_response`, `poll_shapes` | the judgement of one poll: by its status, by the body of each family |
| `poll_result` | judgements, and how they are made |
| `poll_rules` | what follows from a poll: the end, or another one, and when |
| `result_reading` | clips, stems, voices and replies from JSON |
| `redaction` | secrets hidden in texts |
| `signature` | the signature of a webhook |
| `media_types`, `truncated_media` | the type of a music file by its first bytes; whether its end is there |
| `base_url_hints` | hints where a base URL seems to be wrong |
"""
