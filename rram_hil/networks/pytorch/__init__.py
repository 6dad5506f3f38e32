"""Networks in torch: traced from modules, run and trained there. Imported where torch is needed."""
