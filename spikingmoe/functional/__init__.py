"""Pure equations on (input, parameters); modules in `spikingmoe.layers` own the parameters."""
