"""What every listener of the project shares: the address, the connections, the bodies and the log."""
