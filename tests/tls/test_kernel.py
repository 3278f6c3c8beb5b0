"""-o ssl_kernel_tls: whatever the kernel does of it, and if that is nothing, no client sees a difference."""

from __future__ import annotations

import pytest

from tests.tls import test_answers, test_ends, test_hostile_clients, test_sessions, test_unasked
from tests.tls.certificates import Folder


class KernelFolder(Folder):
    """Whose servers let the kernel encrypt."""

    def options(self, *more: str) -> tuple[str, ...]:
        return super().options("ssl_kernel_tls", *more)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return KernelFolder(tmp_path_factory.mktemp("kernel"))


test_a_batch = test_answers.test_a_batch_goes_out_in_few_records
test_large_values = test_answers.test_large_values_and_slow_readers
test_an_end = test_ends.test_the_end_of_a_connection_is_said
test_replies_at_the_end = test_ends.test_replies_that_wait_go_out_before_the_end
test_who_has_gone = test_hostile_clients.test_a_client_that_has_gone_did_nothing_wrong
test_a_slow_handshake = test_hostile_clients.test_a_handshake_has_a_time_limit
test_another_protocol = test_hostile_clients.test_who_does_not_speak_tls_is_told
test_garbage = test_hostile_clients.test_garbage_is_closed_and_leaves_the_others_alone
test_sessions_again = test_sessions.test_sessions_are_resumed
test_new_keys = test_unasked.test_a_flood_of_new_keys_is_no_way_to_hold_up_the_others
