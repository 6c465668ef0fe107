"""The rules of a text message that several programs need. Pure: values in, values out."""
