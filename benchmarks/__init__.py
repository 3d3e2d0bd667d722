"""What the relay costs and how fast it is; see README.md. Everything runs on this machine's loopback."""
