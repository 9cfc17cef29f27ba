"""x"""
import click
@click.command("trust")
def command(): "x"
