"""Lets orbax write arrays to S3, and to storages that speak its protocol.

orbax-checkpoint 0.12.8 writes arrays to local files and to gs:// only, although tensorstore, which
it writes them with, supports S3 as well (https://github.com/google/orbax/pull/2739 proposes to
allow it). The three functions of orbax that tell gs:// from local files are replaced by ones that
recognise s3:// too. No function is replaced in a version of orbax that supports S3 by itself.
"""

import importlib.metadata
import os
from typing import Any

from prior_jax.errors import CheckpointError

_EXAMPLE = "s3://bucket/folder"


def enable(path: str) -> None:
    """Enables s3:// in the orbax of this process; a second call changes nothing.

    The endpoint is `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, as for Amazon's own tools.

    Args:
      path: path that is to be opened, for the message.

    Raises:
      CheckpointError: if the internals of this version of orbax are not the expected ones.
    """
    try:
        from orbax.checkpoint._src.path import gcs_utils
        from orbax.checkpoint._src.serialization import tensorstore_utils as library

        if _driver(library) == "s3":
            return
        normalize, spec_of = library._normalize_path, gcs_utils.get_kvstore_for_gcs
        is_bucket = library._use_gcs_driver
        library._normalize_path = lambda given: normalize(given).replace("s3:/", "s3://")
        library._use_gcs_driver = lambda given: given.startswith("s3://") or is_bucket(given)
        gcs_utils.get_kvstore_for_gcs = lambda given: (
            _spec(given) if given.startswith("s3://") else spec_of(given)
        )
        known = _driver(library) == "s3"
    except (ImportError, AttributeError):
        known = False
    if not known:
        version = importlib.metadata.version("orbax-checkpoint")
        raise CheckpointError(
            f"orbax-checkpoint {version} is installed, and its support of s3:// is unknown.",
            "Install orbax-checkpoint 0.12.8, or choose a local folder or gs://.",
            where=path,
        )


def _driver(library: Any) -> str | None:
    """Returns the driver that orbax would write an s3:// path with, or None if it refuses to."""
    try:
        return library.build_kvstore_tspec(_EXAMPLE, use_ocdbt=True)["base"]["driver"]
    except ValueError:
        return None


def _spec(path: str) -> dict[str, Any]:
    """Returns tensorstore's specification of a location on S3."""
    bucket, _, folder = path.removeprefix("s3://").partition("/")
    spec: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": folder}
    if "AWS_ACCESS_KEY_ID" in os.environ:
        # These credentials take precedence in any case; looking for others logs each absent file.
        spec["aws_credentials"] = {"type": "environment"}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        # tensorstore asks the bucket for its region only if there is no explicit endpoint.
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        spec |= {"endpoint": endpoint, "aws_region": region or "us-east-1"}
    return spec
