"""DHCP for Raspberry Pis: one offer that fits every model, leases keyed on the MAC."""
