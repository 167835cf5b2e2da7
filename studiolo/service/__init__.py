"""The endpoint's library: records in SQL, the queue, keys, admission, webhooks, erasure. See docs/decisions/0011."""
