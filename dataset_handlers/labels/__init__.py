"""What is known of a picture besides its pixels: shapes of instances, trimaps, user clicks."""
