"""HTTP/1.1 for measuring: an httpx transport whose bytes carry the kernel's receive time."""
