// main() of a fuzzer built without libFuzzer: replays stored inputs and makes seeded ones, so that
// every fuzzer runs in the ordinary test suite with the shipping compiler too.
//
//   fuzz_x [-runs=N] [-seed=S] [-max_len=N] [FILE | FOLDER]...
//
// as libFuzzer spells it. Each file is run once, then N inputs are made: random bytes, or a file
// with random edits. A crash leaves its input in ./crash-fuzz_x and prints how to run it again.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" [[gnu::weak]] void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Input = std::vector<std::uint8_t>;

/// What the crash handler needs; it can be passed nothing.
const Input* current = nullptr;
std::string crash_file;
std::string crash_message;

void say_crash() {
    const int fd = ::open(crash_file.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0644);
    if (fd >= 0 && current != nullptr) {
        [[maybe_unused]] const auto written = ::write(fd, current->data(), current->size());
        ::close(fd);
    }
    [[maybe_unused]] const auto written = ::write(2, crash_message.data(), crash_message.size());
}

void on_signal(int signal) {
    say_crash();
    std::signal(signal, SIG_DFL);
    std::raise(signal);
}

void watch_crashes(const std::string& program) {
    crash_file = "crash-" + std::filesystem::path(program).filename().string();
    crash_message = "fuzzer: crashed; run it again with: " + program + " " + crash_file + "\n";
    if (__sanitizer_set_death_callback != nullptr) {
        __sanitizer_set_death_callback(say_crash);
    }
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
        std::signal(signal, on_signal);
    }
}

void run(const Input& input) {
    current = &input;
    LLVMFuzzerTestOneInput(input.data(), input.size());
    current = nullptr;
}

Input read_input(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void collect(const std::filesystem::path& path, std::vector<std::filesystem::path>& files) {
    if (!std::filesystem::is_directory(path)) {
        files.push_back(path);
        return;
    }
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
        if (entry.is_regular_file()) {
            files.push_back(entry.path());
        }
    }
}

/// SplitMix64.
std::uint64_t next(std::uint64_t& state) {
    std::uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

Input make_input(const std::vector<Input>& corpus, std::size_t max_size, std::uint64_t& state) {
    Input input;
    if (corpus.empty() || next(state) % 4 == 0) {
        input.resize(next(state) % (max_size + 1));
        for (auto& byte : input) {
            byte = next(state) % 4 == 0 ? 0 : static_cast<std::uint8_t>(next(state));
        }
        return input;
    }
    input = corpus[next(state) % corpus.size()];
    for (auto edits = 1 + next(state) % 8; edits > 0 && !input.empty(); --edits) {
        const auto at = input.begin() + static_cast<std::ptrdiff_t>(next(state) % input.size());
        switch (next(state) % 4) {
        case 0:
            *at ^= static_cast<std::uint8_t>(1U << next(state) % 8);
            break;
        case 1:
            *at = static_cast<std::uint8_t>(next(state));
            break;
        case 2:
            input.erase(at);
            break;
        default:
            input.insert(at, static_cast<std::uint8_t>(next(state)));
        }
    }
    input.resize(std::min(input.size(), max_size));
    return input;
}

} // namespace

int main(int argc, char** argv) {
    std::uint64_t runs = 0;
    std::uint64_t seed = 1;
    std::size_t max_size = 4096;
    std::vector<std::filesystem::path> files;
    for (int i = 1; i < argc; ++i) {
        const std::string arg = argv[i];
        const auto value = [&] {
            return std::strtoull(arg.c_str() + arg.find('=') + 1, nullptr, 0);
        };
        if (arg.starts_with("-runs=")) {
            runs = value();
        } else if (arg.starts_with("-seed=")) {
            seed = value();
        } else if (arg.starts_with("-max_len=")) {
            max_size = value();
        } else if (!arg.starts_with("-")) {
            collect(arg, files);
        }
    }
    watch_crashes(argv[0]);
    std::sort(files.begin(), files.end());
    std::vector<Input> corpus;
    for (const auto& file : files) {
        corpus.push_back(read_input(file));
        run(corpus.back());
    }
    for (std::uint64_t i = 0; i < runs; ++i) {
        run(make_input(corpus, max_size, seed));
    }
    std::fprintf(stderr, "fuzzer: %zu stored and %llu made inputs\n", corpus.size(),
                 static_cast<unsigned long long>(runs));
    return 0;
}
