"""The GCS emulator, with what it leaves out: `python -m tests.train.gcs_server PORT BUCKET`.

The real service names an object's generation beside its bytes, and tensorstore writes on the
condition that it is still the same: without it, what is written in two rounds is refused.
"""

import sys

from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import objects

_DOWNLOAD = objects.download


def with_generation(request, response, storage, *args, **kwargs):
    """Sends an object, its generation in the headers."""
    _DOWNLOAD(request, response, storage, *args, **kwargs)
    if response.status < 300:
        place = request.params["bucket_name"], request.params["object_id"]
        response["x-goog-generation"] = storage.get_file_obj(*place)["generation"]


def main(port, bucket):
    objects.download = with_generation
    for _, handlers in server.HANDLERS:
        for method, handler in handlers.items():
            handlers[method] = with_generation if handler is _DOWNLOAD else handler
    server.create_server("127.0.0.1", int(port), True, bucket).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
