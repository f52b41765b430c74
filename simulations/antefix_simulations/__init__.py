"""Many users on one machine: cohorts, data sets, arms, reports. Imports no torch when imported."""
