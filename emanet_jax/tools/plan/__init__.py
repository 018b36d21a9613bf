"""What a run would need and take on machines that are not here."""
