"""Taking the measurements: time, memory, the floor, and the machine they are taken on."""
