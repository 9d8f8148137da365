"""The server's routes, and the life of one request."""

import asyncio
from collections import Counter
from collections.abc import Mapping

from aiohttp import web

from chainforge.mock_teacher.asked import LABEL_HEADER, Label, read_asked
from chainforge.mock_teacher.deal import Deal, deal
from chainforge.mock_teacher.dialect import Dialect
from chainforge.mock_teacher.dialects import ANTHROPIC, DIALECTS
from chainforge.mock_teacher.ledger import NOTHING, Entry, Ledger
from chainforge.mock_teacher.limits import Limits
from chainforge.mock_teacher.mock import MockTeacher
from chainforge.mock_teacher.plan import Plan, json_plan
from chainforge.mock_teacher.refused import Refused
from chainforge.mock_teacher.send import send

LARGEST_BODY = 64 * 2**20


class Server:
    """A mock teacher at work: its accounts, its limits, and the conversations that came without a label."""

    def __init__(self, mock: MockTeacher) -> None:
        self.mock = mock
        self.dialect = DIALECTS[mock.dialect]
        self.ledger = Ledger(mock.ledger)
        self.limits = Limits(mock.cap, mock.rpm, mock.retry_after_s)
        self.open: set[asyncio.Task[None]] = set()
        self._arrived = 0
        self._seen: Counter[str] = Counter()

    def app(self) -> web.Application:
        """Every path with and without /v1."""
        app = web.Application(client_max_size=LARGEST_BODY)
        for root in ("", "/v1"):
            if self.dialect is not ANTHROPIC:
                app.router.add_post(f"{root}/chat/completions", self.chat)
            app.router.add_post(f"{root}/messages", self.messages)
            app.router.add_get(f"{root}/models", self.models)
            app.router.add_get(f"{root}/user/balance", self.balance)
        app.router.add_get("/mock/ledger", self.totals)
        app.router.add_post("/mock/reset", self.reset)
        app.router.add_route("*", "/{path:.*}", self.unknown)
        return app

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """OpenAI's chat completions, in the dialect of this server."""
        return await self._ask(request, self.dialect)

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """Anthropic's messages, whatever the dialect of the others."""
        return await self._ask(request, ANTHROPIC)

    async def models(self, request: web.Request) -> web.Response:
        """The models that are named; any other name is answered too."""
        return self._told(request, self.dialect.models(self.mock.models))

    async def balance(self, request: web.Request) -> web.Response:
        """What DeepSeek says is left on the account."""
        left = {"currency": "USD", "total_balance": self.mock.balance_usd}
        left |= {"granted_balance": "0.00", "topped_up_balance": self.mock.balance_usd}
        return self._told(request, {"is_available": True, "balance_infos": [left]})

    async def totals(self, request: web.Request) -> web.Response:
        """The ledger's sums."""
        return _response(json_plan(self.ledger.totals().as_json()))

    async def reset(self, request: web.Request) -> web.Response:
        """Begin anew: no entries, the next request is the first."""
        self.ledger.reset()
        self._arrived = 0
        self._seen.clear()
        return _response(json_plan({"reset": True}))

    async def unknown(self, request: web.Request) -> web.Response:
        """There is nothing here."""
        return _response(json_plan(self.dialect.error(404, f"there is no {request.path}"), 404))

    async def _ask(self, request: web.Request, dialect: Dialect) -> web.StreamResponse:
        body = await request.read()
        self._arrived += 1
        number, delivered = self._arrived, False
        admitted, dealt = self._deal(request.headers, body, dialect, number)
        task = asyncio.current_task()
        assert task is not None
        self.open.add(task)
        try:
            if dealt.plan.status == 200 and self.mock.latency_s:
                await asyncio.sleep(self.mock.latency_s)
            response, sent = await send(request, dealt.plan)
            delivered = sent and dealt.whole
            return response
        except ConnectionError:
            return web.Response()  # nobody is there to read it
        finally:
            self.open.discard(task)
            if admitted:
                self.limits.leave()
            self.ledger.add(self._entry(number, dealt, delivered))

    def _deal(
        self, headers: Mapping[str, str], body: bytes, dialect: Dialect, number: int
    ) -> tuple[bool, Deal]:
        """Whether the request was let in, and what it gets."""
        admitted, label = False, None
        try:
            self._check_key(headers)
            asked = read_asked(body, headers.get(LABEL_HEADER))
            label = asked.label or self._counted(asked.digest)
            self.limits.enter()
            admitted = True
            self.ledger.peak_in_flight = max(self.ledger.peak_in_flight, self.limits.in_flight)
            return admitted, deal(self.mock, asked, label, dialect, number)
        except Refused as refused:
            said = dialect.error(refused.status, refused.message)
            return admitted, Deal(plan=json_plan(said, refused.status, refused.retry_after_s), label=label)

    def _counted(self, conversation: str) -> Label:
        """Of a request without label: the same conversation is a further attempt."""
        self._seen[conversation] += 1
        return Label(int(conversation, 16), conversation, 0, self._seen[conversation] - 1)

    def _entry(self, number: int, dealt: Deal, delivered: bool) -> Entry:
        draft = dealt.draft
        return Entry(
            number=number,
            label=dealt.label,
            fault=dealt.fault.name if dealt.fault else None,
            status=dealt.plan.status,
            finish=draft.finish if draft else None,
            usage=draft.usage if draft else None,
            cost=self.mock.prices.cost(draft.usage, "off-peak") if draft else NOTHING,
            delivered=delivered,
            billed=draft is not None,
        )

    def _check_key(self, headers: Mapping[str, str]) -> None:
        """Raises Refused with 401."""
        key = headers.get("Authorization", "").removeprefix("Bearer").strip() or headers.get("x-api-key", "")
        if not key or self.mock.key not in (None, key):
            raise Refused(401, "Authentication Fails, the key is missing or not valid")

    def _told(self, request: web.Request, value: Mapping[str, object]) -> web.Response:
        try:
            self._check_key(request.headers)
        except Refused as refused:
            return _response(json_plan(self.dialect.error(refused.status, refused.message), refused.status))
        return _response(json_plan(value))


def _response(plan: Plan) -> web.Response:
    return web.Response(status=plan.status, body=plan.body, content_type=plan.content_type)
