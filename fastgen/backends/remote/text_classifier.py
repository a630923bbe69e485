"""How much a text is like a refusal or like an error message, and not like an answer, by the characters that it has.

A linear classifier on n-grams of characters, so it needs no list of sentences, and copes with inflected words and with
languages without spaces. `python -m bench.answers --train` makes its weights (text_classifier.npz) from labelled texts
and grammars. It does not know what is said about an image, nor JSON, web pages and the like (no_answers.py).
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).with_suffix(".npz")
CLASSES = ("answer", "refusal", "error")
BITS = 16
"""Features are hashed into 2**BITS places."""
LONGEST = 5
"""Characters of the longest n-gram."""
MOST_CHARACTERS = 500
"""How much of a text is read. Who refuses says so at the beginning."""
_QUOTED = re.compile(
    r"\"[^\"\n]{1,200}\"|«[^»\n]{1,200}»|「[^」\n]{1,200}」|『[^』\n]{1,200}』|„[^\"“”\n]{1,200}[\"“”]|"
    r"“[^”\n]{1,200}”|(?<!\w)'[^'\n]{2,200}'(?!\w)"
)
_SIMPLIFIED = str.maketrans(
    "這圖請無為們識別說話問題對關規違動發後務誤錯線網絡連輸試時間過頻額費賬號戶價內異員機庫碼應響樣標見觀評論討語謝諒證認驗權條檢測審約絕結給續終統經維護載轉達遠進適選鍵長門閉隊隱難靜頁項顏風體眾僅從會傳寫"
    "凍準刪辦區醫單雙臺葉嗎啟園圍場壞塊處備夠頭學實將師幫乾廣彈錄態願戰報擁換損據攝擺數斷舊顯暫術來構樹橋樓氣沒濕滿燈點熱愛現電畫蓋盤確離種稱簽類紅紙細編聯腦臉節藝藥獲慮補裝觸計訂讓議許訪該調誰談負責敗貨質"
    "貼資賽車輪較邊遺鑑鑰鐵銀鎖閃陽階險霧頂顧領飯飲館馬騎魚鴿麥黃",
    "这图请无为们识别说话问题对关规违动发后务误错线网络连输试时间过频额费账号户价内异员机库码应响样标见观评论讨语谢谅证认验权条检测审约绝结给续终统经维护载转达远进适选键长门闭队隐难静页项颜风体众仅从会传写"
    "冻准删办区医单双台叶吗启园围场坏块处备够头学实将师帮干广弹录态愿战报拥换损据摄摆数断旧显暂术来构树桥楼气没湿满灯点热爱现电画盖盘确离种称签类红纸细编联脑脸节艺药获虑补装触计订让议许访该调谁谈负责败货质"
    "贴资赛车轮较边遗鉴钥铁银锁闪阳阶险雾顶顾领饭饮馆马骑鱼鸽麦黄",
)
"""Traditional Chinese characters of such texts -> the simplified ones, in which the weights are."""
_SPACES, _DIGIT = re.compile(r"\s+"), re.compile(r"\d")


def log_odds(text: str) -> tuple[float, float]:
    """(refusal, error): by how much a text is rather one of these than an answer; below 0 if it is an answer.

    Args:
        text: in lower case. What is in quotation marks in it does not count, because it is what somebody else says.
    """
    places = features(text)
    weights, bias = _weights()
    answer, refusal, error = (weights[places].sum(axis=0) / len(places) ** 0.5 + bias).tolist()
    return refusal - answer, error - answer


def features(text: str) -> Any:
    """The places of the n-grams of a text, as an int64 array without repetitions."""
    import numpy as np

    said = _QUOTED.sub('"', text[:MOST_CHARACTERS]).translate(_SIMPLIFIED)
    spaced = f" {_SPACES.sub(' ', _DIGIT.sub('0', said)).strip()} "
    letters = np.frombuffer(spaced.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    mixed = letters * np.uint64(0x9E3779B97F4A7C15)
    found, grams = [], np.zeros(len(letters) + 1, np.uint64)
    for length in range(1, min(LONGEST, len(letters)) + 1):
        grams = (grams[:-1] * np.uint64(1_000_003)) ^ mixed[length - 1 :]
        found.append((grams + np.uint64(length)) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(64 - BITS))
    return np.unique(np.concatenate(found)).astype(np.int64)


@lru_cache(maxsize=1)
def _weights() -> tuple[Any, Any]:
    """Weights of shape (2**BITS, 3) and biases of shape (3,), as float32 arrays."""
    import numpy as np

    with np.load(WEIGHTS) as file:
        return file["weights"].astype(np.float32) * file["scale"], file["bias"]
