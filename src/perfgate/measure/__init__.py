"""Taking measurements: time, memory, costs, instructions, and the machine they are taken on."""
