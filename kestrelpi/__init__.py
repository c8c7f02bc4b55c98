"""kestrelpi: one Debian machine turns diskless Raspberry Pis into an HPC cluster."""

__version__ = "0.1.0"
