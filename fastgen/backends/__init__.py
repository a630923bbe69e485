"""Backends: each turns a batch into results. One file or folder per backend."""
