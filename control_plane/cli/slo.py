"""`backstay slo`: check, export, status."""
