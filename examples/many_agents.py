"""A Pykka actor of an application that talks to several agents at once and keeps their answers apart.

Usage: python examples/many_agents.py     uses the embedded provider
"""

import threading

import pykka

import penstock

TOPICS = {"history": "Since when are there penstocks?", "physics": "Why does the pressure rise?", "art": "Draw one."}


class Desk(pykka.ThreadingActor):
    """Gets the events of all agents in one mailbox; the metadata of an event says which agent it belongs to."""

    def __init__(self, waiting_for: int) -> None:
        super().__init__()
        self.waiting_for = waiting_for
        self.answers: dict[str, str] = {}
        self.all_done = threading.Event()

    def on_receive(self, message: object) -> None:
        match message:
            case penstock.TokenEvent(kind="text", metadata={"topic": topic}):
                self.answers[topic] = self.answers.get(topic, "") + message.text
            case penstock.StreamCompleted() | penstock.StreamFailed() | penstock.StreamCancelled():
                self.waiting_for -= 1
                if not self.waiting_for:
                    self.all_done.set()


def main() -> None:
    desk = Desk.start(waiting_for=len(TOPICS))
    try:
        with penstock.System() as system:
            agents = {
                topic: system.agent(
                    topic, model="echo", provider="loopback", system_prompt=f"You know all about {topic}."
                )
                for topic in TOPICS
            }
            for topic, question in TOPICS.items():
                agents[topic].stream_chat(question, desk, metadata={"topic": topic})
            if not desk.proxy().all_done.get().wait(timeout=30):
                print("not all have answered")
            answers = desk.proxy().answers.get()
            for topic, agent in agents.items():
                print(f"{topic}: {answers.get(topic)!r}, {len(agent.history)} messages in its history")
                agent.stop()
    finally:
        desk.stop()


if __name__ == "__main__":
    main()
