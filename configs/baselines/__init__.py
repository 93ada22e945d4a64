"""The objectives that PRIOR and GLoRIA are compared with."""
