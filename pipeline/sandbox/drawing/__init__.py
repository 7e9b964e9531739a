"""Draw deterministic test images."""
