"""Stand-ins for utilities that training scripts carry along, which log as well."""
