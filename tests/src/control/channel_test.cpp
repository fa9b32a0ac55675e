#include "src/control/channel.hpp"

#include <filesystem>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace nestor::control {
namespace {

class ChannelTest : public ::testing::Test {
protected:
    void SetUp() override {
        char pattern[] = "/tmp/nestor-XXXXXX";
        directory_ = ::mkdtemp(pattern);
        path_ = directory_ + "/m.sock";
    }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    /// A socket file that nobody listens on any more.
    void leave_stale_socket() const {
        const Fd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
        ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    }

    std::string directory_;
    std::string path_;
};

TEST_F(ChannelTest, AQuestionIsAnsweredAndProgressIsTold) {
    auto listener = Listener::claim(path_, "m");
    ASSERT_TRUE(listener);
    std::thread machine([&listener] {
        std::optional<Fd> peer;
        while (!(peer = listener->accept())) {
            ::usleep(1000);
        }
        MessageReader reader;
        std::optional<std::string> question;
        while (!(question = reader.next())) {
            ASSERT_TRUE(reader.fill(peer->get()));
        }
        EXPECT_EQ(decode_request(*question)->verb, "status");
        Reply reply{Reply::Kind::progress, {}};
        reply.body.add("done", u64{1}).add("total", u64{4});
        ASSERT_TRUE(send_message(peer->get(), encode(reply)));
        reply = {Reply::Kind::ok, {}};
        reply.body.add("name", "m");
        ASSERT_TRUE(send_message(peer->get(), encode(reply)));
    });
    u64 told = 0;
    const auto reply =
        ask(path_, {.verb = "status", .arguments = {}}, 5000, [&](u64 done, u64) { told = done; });
    machine.join();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->body.text("name"), "m");
    EXPECT_EQ(told, 1u);
}

TEST_F(ChannelTest, ASecondClaimOnALivingSocketIsRefused) {
    const auto first = Listener::claim(path_, "m");
    ASSERT_TRUE(first);
    const auto second = Listener::claim(path_, "m");
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::failed);
    EXPECT_TRUE(is_alive(path_));
}

TEST_F(ChannelTest, AStaleSocketIsReplaced) {
    leave_stale_socket();
    EXPECT_FALSE(is_alive(path_));
    EXPECT_TRUE(Listener::claim(path_, "m"));
}

TEST_F(ChannelTest, NothingStaysBehind) {
    {
        const auto listener = Listener::claim(path_, "m");
    }
    EXPECT_TRUE(std::filesystem::is_empty(directory_));
}

TEST_F(ChannelTest, APathThatDoesNotFitIsAUsageError) {
    const auto claimed = Listener::claim(directory_ + "/" + std::string(120, 'x'), "m");
    ASSERT_FALSE(claimed);
    EXPECT_EQ(claimed.error().code, ErrorCode::usage);
    EXPECT_NE(claimed.error().message.find("too long"), std::string::npos);
}

TEST_F(ChannelTest, APeerThatAnnouncesTooMuchIsCutOff) {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    const Fd left(ends[0]);
    const Fd right(ends[1]);
    MessageReader reader;
    const std::string flood(4096, '\xff');
    bool open = true;
    for (int i = 0; open && i < 100; ++i) {
        ASSERT_GT(::send(left.get(), flood.data(), flood.size(), 0), 0);
        open = reader.fill(right.get());
        EXPECT_FALSE(reader.next());
    }
    EXPECT_FALSE(open);
}

TEST_F(ChannelTest, AMessageMayArriveByteByByte) {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    const Fd left(ends[0]);
    const Fd right(ends[1]);
    MessageReader reader;
    const std::string frame("\2\0\0\0{}\1\0\0\0x", 11);
    std::vector<std::string> got;
    for (const char c : frame) {
        ASSERT_EQ(::send(left.get(), &c, 1, 0), 1);
        ASSERT_TRUE(reader.fill(right.get()));
        if (auto text = reader.next()) {
            got.push_back(*text);
        }
    }
    EXPECT_EQ(got, (std::vector<std::string>{"{}", "x"}));
}

} // namespace
} // namespace nestor::control
