// The thread that turns requests into prompts: template, pictures, tokens, keys.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "engine/grammars.h"
#include "engine/known_pictures.h"
#include "engine/open_requests.h"

namespace idefics {

// Requests are prepared one after the other, in the order in which they came, beside the engine's steps: a picture is
// decoded while another one is encoded. It has threads of its own for pictures, which sleep otherwise.
class Preparation {
 public:
  using Deliver = std::function<void(const std::shared_ptr<Job>&)>;

  // `deliver` gets each job that was prepared; what is refused, failed or was cancelled is ended here.
  Preparation(const Processor& processor, const EngineOptions& options, OpenRequests& open, PixelBudget& pixels,
              Deliver deliver);
  // Ends what was not begun as cancelled.
  ~Preparation();

  void post(std::shared_ptr<Job> job);

 private:
  void run();
  void prepare(Job& job, ThreadPool& pool);
  Prompt make_prompt(Job& job, ThreadPool& pool, std::vector<std::vector<TileKey>>& keys);

  const Processor& processor_;
  const EngineOptions& options_;
  OpenRequests& open_;
  PixelBudget& pixels_;
  Deliver deliver_;
  Grammars grammars_;
  KnownPictures known_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> queue_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace idefics
