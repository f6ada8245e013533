import asyncio


async def main():
    await asyncio.sleep(0)
    print("RESULT", "awaited")


asyncio.run(main())
