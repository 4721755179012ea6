"""From a result folder to a report: pandas, seaborn and templates. Never starts anything."""
