"""What `report.html` is made of: tables of numbers, pictures, and the template, styles and script that show them."""
