"""Load: the workload, when its requests are sent, and the client that sends them."""
