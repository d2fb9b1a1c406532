"""What Backstay costs and how fast it is, measured on this machine: `make bench` writes docs/benchmarks.md."""
