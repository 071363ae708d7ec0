"""Pure: values and functions on values. Nothing here can touch time, chance, disk or network."""
