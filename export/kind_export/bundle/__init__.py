"""What is written beside the programs: the manifest, golden data, packs and kits."""
