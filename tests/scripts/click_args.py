import click


@click.command()
@click.option("--count", default=1)
@click.argument("name")
def main(count, name):
    click.echo(f"RESULT {' '.join([name] * count)}")


if __name__ == "__main__":
    main()
