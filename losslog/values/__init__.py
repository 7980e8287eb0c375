"""What a loop hands over becomes floats: losses, snapshots, totals, means, targets."""
