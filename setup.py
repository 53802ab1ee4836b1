"""Packaging hook; the rest of the metadata is in pyproject.toml."""

from setuptools import setup

setup()
