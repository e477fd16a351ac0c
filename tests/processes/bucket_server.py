"""moto's S3 server on the loopback address, one request at a time, so that its conditional writes are atomic.

python tests/processes/bucket_server.py        prints its port, and serves until it is killed
"""

import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    def log(self, *said) -> None:
        pass


def main() -> None:
    app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_at_a_time(environ, start):
        with lock:
            return app(environ, start)

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=Quiet)
    print(server.port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
