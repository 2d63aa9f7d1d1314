"""The standard library's HTTP server for callers that come all at once: its own lets five wait."""

from http.server import ThreadingHTTPServer


class PatientServer(ThreadingHTTPServer):
    """Lets as many wait as any test sends."""

    request_queue_size = 512
