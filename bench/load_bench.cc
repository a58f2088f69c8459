// What a process start costs: the phases of loading a checkpoint, then one picture through the processor.
//
//   load_bench CHECKPOINT [IMAGE]
//
// One line for each phase: wall time, CPU time of all threads (user and system), peak memory so far. On a shared
// machine only CPU time means much. Every run starts cold: run it several times and take the median.
#include <fmt/format.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdio>

#include "base/files.h"
#include "idefics/engine.h"
#include "image/codec.h"
#include "image/tiles.h"
#include "model/network.h"
#include "processor/parts.h"

namespace idefics {
namespace {

struct Clock {
  double wall, user, system;
  static Clock now() {
    rusage r{};
    getrusage(RUSAGE_SELF, &r);
    const auto ms = [](const timeval& t) {
      return 1e3 * static_cast<double>(t.tv_sec) + 1e-3 * static_cast<double>(t.tv_usec);
    };
    const auto wall = std::chrono::steady_clock::now().time_since_epoch();
    return {std::chrono::duration<double, std::milli>(wall).count(), ms(r.ru_utime), ms(r.ru_stime)};
  }
};

// Runs and reports one phase.
template <typename Body>
auto phase(const char* name, Body&& body) {
  struct Report {
    const char* name;
    Clock start = Clock::now();
    ~Report() {
      const Clock end = Clock::now();
      rusage r{};
      getrusage(RUSAGE_SELF, &r);
      fmt::print("{:20} {:8.1f} ms   cpu {:8.1f} + {:7.1f} ms   peak {:6.1f} MiB   {} faults\n", name,
                 end.wall - start.wall, end.user - start.user, end.system - start.system,
                 static_cast<double>(r.ru_maxrss) / 1024, r.ru_minflt);
    }
  } report{name};
  return body();
}

void run(const std::filesystem::path& folder, const char* image) {
  {
    ThreadPool pool(num_available_cpus());
    Processor processor = phase("processor", [&] { return Processor::load(folder); });
    PipelineConfig pipeline;
    pipeline.model.model_path = folder;
    pipeline.model.huggingface_config = processor.parts().config;
    Idefics3Config config = Idefics3Config::initialize(pipeline);
    const Checkpoint checkpoint = phase("open", [&] { return Checkpoint::open(folder); });
    phase("verify", [&] { checkpoint.verify(config); });
    phase("finalize", [&] {
      config.finalize(*pipeline.model.huggingface_config, checkpoint.state_dict(), ReturnLogits::kLastToken);
    });
    phase("pack", [&] { return Network(pool, checkpoint, config, Element::kBf16); });
    if (image != nullptr) {
      const std::string bytes = read_file(image, uint64_t{1} << 30);
      for (int i = 0; i < 5; ++i) {
        const Image picture = phase("decode", [&] { return decode_image(std::as_bytes(std::span(bytes))); });
        phase("cut", [&] { return make_frames(picture, processor.config().image, &pool); });
      }
    }
  }
  phase("all of Engine::load", [&] { return Engine::load(folder); });
}

}  // namespace
}  // namespace idefics

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fputs("usage: load_bench CHECKPOINT [IMAGE]\n", stderr);
    return 2;
  }
  try {
    idefics::run(argv[1], argc == 3 ? argv[2] : nullptr);
  } catch (const idefics::Error& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
