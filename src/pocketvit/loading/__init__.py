"""From a table of images to augmented chunks on the device."""
