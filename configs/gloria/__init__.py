"""GLoRIA."""
