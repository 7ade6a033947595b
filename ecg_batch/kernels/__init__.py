"""Kernels: C++ and its wrappers. Each has a plain reference elsewhere that a test holds it to."""
