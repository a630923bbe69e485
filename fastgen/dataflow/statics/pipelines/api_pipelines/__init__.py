"""Pipelines that ask a service."""
