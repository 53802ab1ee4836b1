"""The ground floor: errors, the configuration, devices, ranks and signals. It knows no loss and no model."""
