"""Fixtures: an S3 of the tests' own, with credentials for it."""

from support.s3 import s3, s3_environ, s3_server

__all__ = ["s3", "s3_environ", "s3_server"]
