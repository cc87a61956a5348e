"""Loading a model so that gradients go through it: adapters, quantised weights, small copies."""
