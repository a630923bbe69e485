"""Pipelines that use a service."""
