"""How services and models say that there is no answer, by language, as regular expressions for no_answers.py.

They match the beginning of one sentence in lower case, with plain apostrophes and ASCII punctuation. Each language has
grammar rather than sentences: who speaks, that they cannot, and what it is about.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """Of one language."""

    lead: str
    """What may come before a refusal: an apology, "unfortunately", "as an AI"."""
    refusals: tuple[str, ...]
    errors: tuple[str, ...]
    meta: str
    """Words of somebody who speaks to the user, not of a description."""
    quoted: str
    """What makes a sentence a quotation, as of a sign or a postcard."""
    depicted: str
    """What makes an error message a thing that is seen."""
    speaker: str
    negation: str
    service: str
    """A sentence that has all three, of the one who answers, that it is not, and of what was asked for, refuses too."""


_CANNOT = (
    r"(?:can(?:no|')?t|can not|cannot|could ?n[o']t|couldn't|won't|will not|would not|wouldn't|(?:'m|'re|am|are|"
    r"is|was) "
    r"(?:currently |unfortunately |simply |just )?(?:unable|not able|not allowed|not permitted|not comfortable|"
    r"not authori[sz]ed|not going|not equipped|not designed|not programmed|not in a position|not capable|incapable)"
    r"(?: of| with)?(?: to)?|(?:must|have to|need to|will have to|'ll have to) (?:respectfully |politely )?"
    r"(?:decline|refuse|refrain|abstain)(?: to| from)?|(?:decline|refuse) to|do(?:n't| not) (?:feel comfortable|have "
    r"(?:the |any )?(?:ability|capability|capacity|means|permission|tools)|support)(?: to| of)?|lack the (?:ability|"
    r"capability)(?: to)?|'?d (?:rather|prefer) not(?: to)?|ought not|should not|shouldn't)"
)
_ADVERB = (
    r"(?:directly |really |currently |properly |actually |ethically |in good conscience |therefore |also |even |"
    r"provide or |view or |see or |access or |open or |identify or |assist or |just |simply |further |reliably |"
    r"accurately |confidently |legally |be able to )*"
)
_PICTURE = (
    r"(?:image|photo|picture|photograph|attachment|file|upload|visual|screenshot|video|document|link|url|figure)s?"
)
_SERVE = (
    r"(?:help(?!\w)(?! but| falling| loving| myself| it\b| feeling| noticing| thinking| wanting| being)|assist|"
    r"comply|"
    r"fulfil|accommodate|"
    r"describe(?! how| the feeling| my)|identify|provide|process|generate|produce|caption|analy[sz]e|discuss|engage|"
    r"proceed|recogni[sz]e|interpret|participate|transcribe|speculate|respond|answer(?! the (?:phone|door))|"
    r"continue with|support|comment|"
    r"create|complete (?:this|that|the|your)|do (?:that|this|so)|access|view|open (?:the|this|that|any|your) \w*|"
    r"offer|verify|determine|display|infer|guess|name (?:the|this|any|people|real)|make (?:any )?(?:assumption|"
    r"identification|judg|inference)|share (?:that|this|any|info|details|personal)|reproduce|endorse|promote|"
    r"handle|perform|evaluate)"
)
_ABOUT = (
    rf"(?:\w+ ){{0,6}}?(?:{_PICTURE}|requests?|content|question|instructions?|material|prompt|description|caption)\b"
)
_SPEAKER = (
    r"(?:i|we|this (?:ai |language )?(?:model|assistant|system|service|tool)|the (?:ai |language )?(?:model|"
    r"assistant)|"
    r"(?:my|our) (?:guidelines|policies|policy|programming|safety guidelines|instructions) (?:prevent|prohibit|do "
    r"not "
    r"allow|don't allow|forbid|restrict|state)\w*)"
)
_ASKED = (
    r"(?:request|prompt|content|input|question|message|image|photo|picture|query|submission|generation|output|"
    r"response|"
    r"answer|completion|reply|result|text)s?"
)

ENGLISH = Words(
    lead=(
        r"(?:(?:oh|hi|hello|hey|well|hmm|oops|okay|thank(?:s| you)[^,.!]*|unfortunately|regrettably|however|but|"
        r"sadly|so|"
        r"sorry|(?:my |our |many |sincere )?apologies|i (?:do |sincerely |must )?apologi[sz]e[^,.;]*|i regret(?: to "
        r"(?:inform|say|tell)[^,]*)?|"
        r"(?:i'?m|i am|we'?re|we are) (?:very |so |really |truly |terribly |deeply |extremely |incredibly )"
        r"?(?:sorry|afraid|"
        r"happy to help|glad to help)|i(?:'d| would) (?:love|like|be happy|be glad) to (?:help|assist)|"
        r"i (?:understand|appreciate|see)[^,.;]*|"
        r"as an? (?:large |responsible |helpful |text-based |multimodal )?(?:ai|a\.i\.|language|text|artificial|"
        r"virtual|"
        r"assistant|vision|chatbot|machine)\b[^,]*|to (?:be|comply|protect|respect)[^,]*|"
        r"(?:based on|due to|given|in line with|because of|per|under|according to|in accordance with|for) [^,.;]*|"
        r"(?:while|although|even though) [^,]*|(?:at this time|at the moment|currently|right now))"
        r"[,.:;!\- ]*(?:but |that |and |to say |to (?:inform|tell) you |however,? )*)"
    ),
    refusals=(
        rf"{_SPEAKER} ?(?:currently |simply |just |also |really |still |therefore |unfortunately |apparently )"
        rf"*{_CANNOT} "
        rf"?{_ADVERB}(?:{_SERVE}\w*\b|(?:see|find|tell|read|do|make|write|say|discern|load|receive|work with|use|"
        rf"open|"
        rf"accept|look at|perceive|detect) {_ABOUT}|(?:\w+ ){{0,3}}{_PICTURE}\b)",
        r"(?:i|we) (?:must|have to|need to|will have to|'ll have to) (?:respectfully |politely )?(?:decline|refuse)",
        r"(?:i|we) (?:respectfully |politely )?(?:decline|refuse)\b(?! the)",
        rf"{_CANNOT} {_ADVERB}(?:{_SERVE}\w*)(?: |\b)(?:(?:with |to )?(?:this|that|the|your|any|an?|it|requests?|"
        rf"you)\b|"
        r"(?:people|person|persons|image|images|request|content|faces?)\b|[.,!]|$)",
        rf"(?:not able|unable|not allowed|not permitted) to {_ADVERB}(?:{_SERVE}|see|read|load)\w*",
        rf"(?:can(?:no|')?t|cannot|won't) {_ADVERB}(?:help|assist|comply|do (?:that|this)|fulfil\w*)\b(?! but)",
        rf"(?:i|we) (?:do(?:n't| not)|did(?:n't| not)|have(?:n't| not)|can'?t|cannot) (?:actually |currently |yet |"
        rf"appear to |seem to )*(?:see|have|received?|find|get|gotten|detect|been (?:given|provided))(?: with| "
        rf"access to)? "
        rf"(?:\w+ ){{0,4}}?{_PICTURE}\b",
        r"(?:i|we) (?:do(?:n't| not)) (?:actually |currently )?have (?:\w+ )?(?:access|ability|capabilit|vision|"
        r"permission|"
        r"(?:enough|sufficient) (?:information|context))",
        r"(?:i|we) (?:do(?:n't| not)|never) (?:identify|describe|provide|generate|create|engage|discuss|assist|"
        r"caption|"
        r"produce|comment|recogni[sz]e|offer|respond|answer|process|participate|make (?:such|any|assumptions)|"
        r"share|name)\b",
        r"there (?:does(?:n't| not)) (?:seem|appear) to be (?:\w+ ){0,3}?(?:image|photo|picture|attachment|file)",
        r"(?:identifying|describing|recogni[sz]ing|naming|captioning)\b[^.;]{0,60}? (?:isn't|is not|falls outside|"
        r"goes "
        r"beyond|would (?:be|not be|violate))\b",
        r"(?:the |your |an? )?(?:image|photo|picture|file|attachment|upload)s? (?:you (?:sent|shared|mentioned) )"
        r"?(?:did(?:n't| "
        r"not)|does(?:n't| not)|failed to|has(?:n't| not)|was(?:n't| not)|is(?:n't| not)|were(?:n't| not)|"
        r"could(?:n't| not)) (?:to )"
        r"?(?:seem to |"
        r"appear to |have |been |be )*(?:come|load|upload|attach|display|open|arrive|go|include|provide|process|"
        r"access|view|"
        r"visible|shown|"
        r"available|accessible)",
        r"(?:i|we) have no (?:access|way|ability|means|image|picture)",
        r"i(?:'m| am) (?:just |only |currently |merely )*an? (?:text|ai|language|large language|artificial|virtual|"
        r"text-only)\b",
        r"as an? (?:large |responsible |text-based )?(?:ai|language|artificial intelligence)(?: language)?"
        r"(?: model| assistant| system| chatbot)?[^,.]{0,40}, (?:i|my|it'?s)\b",
        rf"(?:this|that|the|your|these|requested) {_ASKED} (?:you (?:sent|provided|submitted) )?(?:was|were|has "
        rf"been|have "
        rf"been|is|are|could not be|couldn't be|cannot be|can't be|may|appears to|seems to|might|will not be|did not|"
        rf"violat|goes|does not|is being)[^.;]{{0,40}}?(?:block|reject|flag|denied|refus|filter|empty|process|"
        rf"violat|against|allow|permitted|support|"
        rf"inappropriate|sensitive|disallow|prohibit|declin|complet|comply|conform|pass|missing|fulfil|approved|"
        rf"uploaded|attached|load|come through|provided|corrupt|attach)",
        rf"(?:this|that|the|your) {_ASKED} (?:violates|goes against|contains (?:\w+ )?(?:inappropriate|explicit|"
        r"prohibited|sensitive|harmful|disallowed))",
        r"(?:this|that|it)(?:'s| is| would be| isn't| goes)(?: not)? (?:something (?:that )?(?:i|we)|against "
        r"(?:my|our|the "
        r"(?:rules|polic|content|guid|terms))|inappropriate for me|possible for me|appropriate for me|not "
        r"(?:appropriate|"
        r"possible) (?:for me|to (?:identify|describe)))",
        r"(?:this|it|that) (?:violates|would violate|may violate|goes against) (?:my|our|the|openai|google|"
        r"content|usage)",
        rf"(?:there (?:is|are|was|were|seems to be|appears to be)(?:n't| not| no)?|no) (?:\w+ ){{0,2}}?{_PICTURE} "
        r"(?:here |to (?:describe|caption|analy[sz]e|see|process|look)|(?:that |which )?(?:was |were |is |are |"
        r"has been |have "
        r"been |seems? |appears? )?(?:to have been |to be )?(?:actually )?(?:provided|attached|uploaded|included|"
        r"found|"
        r"received|given|detected|sent|shared|available|supplied|present in (?:your|the)))",
        rf"(?:it (?:seems|looks|appears)|looks|seems)(?: like| that| as if| as though)? (?:it (?:was|did|has|is)"
        rf"(?:n't| not)|there (?:is|was|'s) "
        rf"(?:no|an "
        rf"(?:issue|error|problem))|you (?:have(?:n't| not)|did(?:n't| not)|forgot|may have forgotten|might have)|"
        rf"(?:your|the|an?|no) (?:\w+ ){{0,2}}?(?:{_PICTURE}|message|request|prompt|input)\b[^.]{{0,30}}(?:n't|"
        rf"not|empty|missing|"
        r"fail|attached|error|uploaded|provided|blank|corrupt))",
        rf"you (?:have(?:n't| not)|did(?:n't| not)|don't seem to have|forgot to) (?:\w+ )?(?:provide|attach|"
        rf"upload|include|"
        rf"share|sen[dt]|attached|uploaded|included)\w*\b[^.]{{0,20}}{_PICTURE}",
        rf"(?:could you |can you |would you |if you )?(?:please |kindly )?(?:re-?)?(?:try (?:to )?)?(?:upload|"
        rf"provide|"
        rf"share|attach|send|submit|supply|resend)(?:ing)? (?:me |it |us )?(?:with )?(?:the |an? |your |that )"
        rf"?(?:\w+ ){{0,2}}?"
        rf"{_PICTURE}",
        r"how (?:can|may|could) i (?:help|assist|be of)[^?]{0,40}\?",
        r"what (?:can|may|would you like) i (?:help|assist|do)|what would you like (?:me )?to (?:do|know|discuss)",
        r"(?:no|the) (?:description|caption|answer|response|content|text)s? (?:is |was |are )?(?:available|"
        r"unavailable|"
        r"not available|blocked|removed|withheld|generated|could be (?:generated|provided|produced))",
        r"\[?(?:request|prompt|content|image|response|output|message|answer|description) (?:denied|declined|refused|"
        r"rejected|blocked|filtered|withheld|removed|redacted|unavailable|not available|not permitted|censored)\b",
        r"(?:blocked|refused|rejected|filtered|flagged|removed) (?:by|due to|for) (?:\w+ ){0,3}(?:safety|content|"
        r"policy|"
        r"polic|filter|moderation|guideline|violat)",
        r"(?:the )?(?:safety|content|moderation) (?:filter|system|polic\w+)s? (?:has |have |was |were )?(?:block|"
        r"trigger|"
        r"reject|prevent|flag|prohibit)",
        r"(?:i|we) (?:appreciate|understand) [^.]{0,60}, but (?:i|we)\b",
        r"let'?s (?:talk about|discuss|change|choose|try) (?:something|a different|another|the (?:topic|subject))",
        r"(?:describing|identifying|captioning|generating|providing) (?:\w+ ){0,4}(?:is not|isn't|would be|goes|"
        r"violates|"
        r"is against)\b[^.]*(?:something i|polic|guidelin|allowed|possible for me|appropriate)",
        r"i prefer not to\b",
        r"there(?:'s| is) nothing (?:i|for me)",
    ),
    errors=(
        r"(?:an? |the )?(?:\w+ ){0,3}(?:error|exception|failure)s?\b ?(?:$|[:!.(\[\-]|#?\d{3}|code\b|has |occurr|"
        r"while |during |"
        r"processing|connecting|calling|loading|generating|communicat|reading|decoding|fetching|from |in (?:the )?"
        r"(?:request|model|server|api))",
        r"\[(?:error|fatal|critical|failed|failure|err|exception)\]",
        r"(?:the |this |your )?(?:upstream |remote |inference |ai |api )*(?:model|server|api|service|provider|"
        r"engine|worker|"
        r"backend|gateway|endpoint|upstream|host|client)s? (?:did(?:n't| not)|does(?:n't| not)|could(?:n't| not)|"
        r"failed|was "
        r"unable|has (?:timed|failed|exceeded|crashed)|(?:is|are|was|were) (?:timing|timed|overloaded|exhausted|"
        r"not (?:respond|"
        r"avail|reach|ready))) ?(?:to )?(?:return|respond|produce|generate|complete|process|answer|out|ing|able|"
        r"reply|find|"
        r"handle|load|start|[.,]|$)",
        r"(?:all |the )?(?:resources?|quota|memory|capacity|workers|tokens|retries|attempts)"
        r"\b[^.]{0,20}(?:exhausted|depleted|"
        r"exceeded|failed|used up|insufficient)",
        r"(?:\w+\.)*\w*(?:error|exception|timeout)\b ?[:(]",
        r"(?:http(?:/[\d.]+)? |status(?: code)?[: ]+|error[: ]+|code[: ]+)*[45]\d\d ?[:\-,. (]* ?(?:$|bad |internal |"
        r"server |service |gateway|too many|not |unauth|forbid|payload|request|client|error|method|unprocess|time|"
        r"{|<)",
        r"(?:internal server error|bad gateway|bad request|gateway time-?out|service (?:is )?(?:temporarily |"
        r"currently )?"
        r"unavailable|too many requests|unauthori[sz]ed|forbidden|access denied|permission denied|not found|"
        r"request entity "
        r"too large|payload too large|method not allowed|no healthy upstream|upstream \w+|request time-?out|"
        r"unprocessable entity|not implemented)\b ?(?:$|[.,!:(\-]|error|request|please|due|while|for)",
        r"(?:api |user |model |requests? |tokens? )?(?:rate[ -]?limit|quota|usage limit|spending limit|credit "
        r"limit|token "
        r"limit|limit)s?(?: has| have| was)?(?: been)? ?(?:exceed|reach|hit|error|for |on |:)",
        r"(?:you|your (?:account|organi[sz]ation|project|api key|request|prompt|credit|plan))[^.]{0,40}(?:exceed|"
        r"insufficient|ran out|run out|reached|not active|suspended|expired|over (?:your|the)|out of|too (?:low|"
        r"long|large|"
        r"many)|invalid|deactivated|being rate)",
        r"(?:insufficient|not enough) (?:quota|balance|credits?|funds|memory|permissions?|gpu)",
        r"(?:invalid|incorrect|missing|expired|wrong|unsupported|malformed|unknown|empty|corrupt\w*|bad|null)"
        r"(?: or \w+)? (?:api|auth\w*|access|"
        r"token|image|request|input|base64|url|response|json|key|media|file|parameter|model|content|argument|data|"
        r"body|"
        r"prompt|credential|session|format|reply|output|answer)[ _]?(?:key|type|format|url|data|token|provided|"
        r"from|received|"
        r"returned|id|body|response|argument|was|has|is|file|generated|found)?s?\b[^.]{0,40}(?:$|[.:!])",
        r"no (?:valid |usable )?(?:image|response|content|data|input|output|model|choices|candidates|text|answer|"
        r"result|healthy upstream|worker|endpoint|route|capacity|instance)s? ?(?:was |were |is |are )?(?:provided|"
        r"received|found|returned|generated|available|produced|in the response)",
        r"(?:the |this |an? |your )?(?:\w+ ){0,2}?(?:request|connection|server|service|model|operation|upstream|"
        r"api|job|task|"
        r"generation|inference|worker|response|call|backend|gateway|process|download|upload|stream|session|engine|"
        r"provider|"
        r"endpoint|query)(?: \w+){0,3}? (?:failed|timed out|errored|(?:is|was|are|has been|has|have) (?:\w+ )?"
        r"(?:overloaded|unavailable|offline|reset|refused|closed|aborted|cancell?ed|failed|timed out|expired|crashed|"
        r"terminated|not available|not responding|unreachable|down for maintenance|not found|exceeded|rejected by "
        r"the "
        r"server|interrupted|disconnected|experiencing|throttled)|"
        r"(?:is|are) (?:\w+ )?(?:busy|down|loading)(?=$|[.,!;]| please| right now| at the moment| now)|aborted|"
        r"refused|reset|"
        r"exceeded|terminated|unavailable|returned (?:an? |no |empty|status|code|\d)|did not respond|does not "
        r"exist|not "
        r"found|error|reset by peer|could not be (?:completed|processed|reached|established))\b",
        r"(?:failed|unable|could not|couldn't|cannot|can't|was not able)(?: to)? (?:\w+ )?(?:load|fetch|download|"
        r"decode|open|"
        r"process|read|retrieve|generate|connect|parse|reach|allocate|resolve|complete|call|get|deserialize|upload|"
        r"establish|find (?:the )?(?:file|image|model)|identify image file|convert)\b",
        r"(?:oops|uh[ -]oh|whoops|hmm)[,!. ]",
        r"(?:something|things) went wrong",
        r"(?:an?|some) (?:\w+ ){0,2}(?:error|problem|issue) (?:has )?(?:occurred|happened|was encountered)",
        r"(?:we|i) (?:encountered|ran into|are experiencing|experienced|hit) an? (?:\w+ )?(?:error|problem|issue|"
        r"technical)|"
        r"we(?:'re| are) (?:currently )?experiencing",
        r"please (?:try again|retry|wait|check your (?:api|connection|network|input|request)|contact (?:support|"
        r"the admin))",
        r"(?:torch\.)?cuda\b.{0,20}(?:error|out of memory|oom|failure)|out of memory|oom\b|nccl\b|segmentation "
        r"fault|killed$|"
        r"core dumped|device-side assert|runtime error",
        r"traceback \(most recent call last\)",
        r"(?:no such file|connection (?:reset|refused|aborted|timed|error|closed|lost|broken|failed|pool|was)|"
        r"read timed out|"
        r"max(?:imum)? retries exceeded|max retries|httpsconnectionpool|httpconnectionpool|certificate verify "
        r"failed|ssl[: ]|"
        r"ssl error|name or service not known|getaddrinfo|e?conn(?:reset|refused|aborted)|etimedout|socket hang "
        r"up|fetch "
        r"failed|network (?:error|unreachable|is unreachable|connection|timeout)|broken pipe|dns|temporary "
        r"failure|errno|"
        r"\[errno|timeout\b ?(?:$|[:.!(]|error|exceeded|while|after|of)|timed out|deadline exceeded|operation timed)",
        r"(?:this model'?s? )?(?:maximum context|context (?:length|window)|max(?:imum)? (?:tokens?|length)|prompt "
        r"is too "
        r"long|input (?:is )?too long)",
        r"(?:the )?model [\w'\"/.:\-]+ (?:does not exist|not found|is not (?:available|found|supported|loaded)|is "
        r"overloaded|"
        r"has been deprecated|was not found)",
        r"(?:the |your )?(?:image|picture|photo|file|media|input|prompt|request|payload|message|resolution|text|"
        r"upload)"
        r"(?: \w+){0,2} (?:(?:is |are |was )?too (?:large|big|long|small)|exceed\w*|is corrupt\w*|has an? "
        r"(?:invalid|unsupported))",
        r"(?:the )?(?:image|picture|photo|file|media|input image)(?: \w+){0,2} (?:could not|couldn't|cannot|can't|"
        r"failed to|"
        r"was not|is not|too large|is too large|exceeds|not found|is corrupt\w*|not supported)(?: be)?(?: \w+)? "
        r"?(?:load|open|"
        r"decod|process|download|fetch|read|valid|support|a valid|found|display|retriev|identif|$|[.:])",
    ),
    meta=(
        r"\b(?:i|i'm|i'd|i'll|i've|my|me|you|your|we|our|us|please|sorry|policy|policies|guidelines|request|ai|"
        r"terms of|let "
        r"me|assist|upload\w*|privacy|feel free)\b"
    ),
    quoted=(
        r"\b(?:says|said|reads|reading \W|written|handwritten|printed|scrawled|stencil\w+|stitched|engraved|"
        r"embroidered|tattooed|"
        r"captioned|spelled|sings|proclaims|jokes|quips|announces|"
        r"(?:sign|poster|banner|note|letter|postcard|placard|book|mug|t-shirt|shirt|bubble|caption|meme|sticker|"
        r"billboard|"
        r"label|headline|card|graffiti|tattoo|bumper|cover|slide|screen|screenshot|title|text)s? "
        r"(?:begins|starts|states|says|shows|reads|declares|warns|asks|above|below|of a|on a|in a)|"
        r"in (?:blue|red|white|black|bold|big|large|neon|gold|chalk|capital|block|spray)\w* (?:ink|letters|paint|"
        r"text|"
        r"script|type|lights|pen|marker)|(?:on|across|above|below|under|beside|over) (?:an? |the |his |her )"
        r"(?:\w+ ){0,3}(?:poster|banner|"
        r"sign|wall|mug|t-shirt|shirt|card|page|billboard|screen|cover|sticker|placard|note|jacket|bag|cap|door|"
        r"window|"
        r"whiteboard|blackboard|cake|napkin|street|stage|photograph|photo of|protester|cartoon|cake))\b"
        r"|^[\"'«].{0,80}[\"'»],? (?:a|an|the|says|asks|is|on|in|by|from|printed|written)"
    ),
    depicted=(
        r"\b(?:photo|picture|image|photograph|screenshot|painting|drawing|illustration|cartoon|print|view|"
        r"close-up|closeup|logo|"
        r"sculpture|rendering|mural|snapshot|still|cover|page|collage|comic|sketch) (?:of|shows?|showing|"
        r"depict\w*|with an?|that)\b"
        r"|\b(?:an?|the|this|two|three|his|her|their|some) (?:[\w\-'\"]+ ){0,4}(?:screen|screenshot|monitor|"
        r"terminal|dialog|poster|sign|laptop|"
        r"tv|television|kiosk|billboard|meme|mug|shirt|t-shirt|sticker|pop-?up|display|tablet|dashboard|banner|"
        r"man|woman|"
        r"boy|girl|child|person|people|dog|cat|robot|desk|keyboard|wall|ticket|website|browser|typewriter|restaurant|"
        r"stamp|coin|door|street|car|astronaut|artwork|painting|book|notebook|whiteboard|blackboard|office|board|"
        r"window|"
        r"cartoon|programmer|developer|player|referee|judge|team|crowd|train|note|vending machine|atm|arcade|game)"
        r"s?\b"
        r"|\b(?:is |are )?(?:shown|displayed|printed|written|visible|seen|painted|scrawled|appears|appear|glows?|"
        r"flash\w*|blinks?|pinned|"
        r"stamped|taped) (?:on|in|across|at|above|over|below)\b"
        r"|\b(?:children|men|women|kids|sits?|stands?|lies|walks?|holds?|wears?|talks?|plays?|smiles?|wearing|"
        r"holding|standing|"
        r"sitting|lying|walking|playing|smiling|hangs?|leans?|rides?|jumps?|sleeps?|swims?|flies|climbs?)\b"
        r"|\b(?:reads|says|blue screen|in (?:red|white|green|yellow|blue|bold|large|big|neon) )"
    ),
    speaker=r"\b(?:i|i'm|i'd|i'll|i've|me|my|we|our|us|sorry|apolog\w+|please|you|your|unfortunately)\b",
    negation=(
        r"n't\b|\b(?:not|no|cannot|never|unable|declin\w+|refus\w+|forbid\w*|prohibit\w*|against|impossible|"
        r"violat\w+|disallow\w*|inappropriate|lack)\b"
    ),
    service=(
        r"\b(?:help|assist\w*|describ\w+|provid\w+|images?|pictures?|photos?|requests?|content|identify\w*|"
        r"information|answer|comment\w*|ai|guidelines|polic\w+|upload\w*|allowed|analy[sz]\w+|captions?|respond|"
        r"attach\w*|generat\w+|complete|process\w*|comply)\b"
    ),
)

_ZH_CANNOT = (
    r"(?:无法|不能|没法|没办法|没有办法|无权|不便|不可以|拒绝|不会|未能|不支持|没有能力|没有权限|不具备|不方便|"
    r"不太方便|难以|不适合|不应|"
    r"不允许|不被允许|做不到)"
)
_ZH_DO = (
    r"(?:查看|看到|看见|识别|描述|提供|处理|回答|帮|协助|生成|满足|完成|访问|讨论|分析|辨认|打开|读取|执行|评论|"
    r"回应|支持|显示|加载|创建|创作|"
    r"解读|透露|参与|给出|继续|判断|确定|确认|响应|接收|获取|说明|写|做|查阅|浏览|答复|这么做|这样做|能力|功能|理解)"
)
CHINESE = Words(
    lead=(
        r"(?:(?:您好|你好|嗯|哦|谢谢[^,。]*|感谢[^,。]*|(?:很|非常|十分|真的|实在)?(?:抱歉|对不起|遗憾|不好意思)|"
        r"sorry|请(?:您)?(?:谅解|见谅|"
        r"理解)|(?:但|不过|但是|可是|然而)|作为[^,。]{0,30}|根据[^,。]{0,30}|由于[^,。]{0,30}|出于[^,。]{0,20}|"
        r"因为[^,。]{0,30}|为了[^,。]{0,20})"
        r"[,。.!:;、 ~]*)"
    ),
    refusals=(
        rf"(?:我们?|本人|本助手|本模型|本系统|系统|助手|小助手|该模型|此模型|ai)"
        rf"[^,。]{{0,8}}?{_ZH_CANNOT}[^,。的]{{0,12}}?{_ZH_DO}",
        rf"(?:我们?)(?:从)?不(?:会|再|想|愿意?|可)?[^,。的]{{0,4}}?{_ZH_DO}",
        rf"(?:目前|暂时|当前|现在|暂)?{_ZH_CANNOT}[^,。的]{{0,10}}?{_ZH_DO}(?:该|此|这|您|你|相关|任何|图|照|请求|"
        rf"内容|问题|服务|!|,|。|$)",
        rf"(?:我|这|该|此|您的|你的|图片|照片|图像|内容|请求)[^,。]{{0,10}}?{_ZH_CANNOT}(?:被)"
        rf"?[^,。的]{{0,6}}?{_ZH_DO}",
        r"(?:我|目前|似乎|好像|看起来|看来)?[^,。]{0,6}?(?:没有|未|没|尚未|并未|还没有)(?:能)?(?:看到|收到|检测到|"
        r"上传|提供|附上|找到|发送|接收到|附带|发现|成功上传)"
        r"[^。,]{0,8}?(?:图片|图像|照片|附件|文件|任何内容)",
        r"(?:图片|图像|照片|附件|文件)[^,。]{0,8}?(?:没有|未|未能|没|尚未)(?:成功)?(?:上传|提供|加载|发送|显示|"
        r"附上|打开)",
        r"请[^,。]{0,6}?(?:上传|提供|发送|附上|分享|发)[^,。]{0,10}?(?:图片|照片|图像|文件|图)",
        r"(?:您|你)[^,。]{0,6}?(?:没有|未|尚未|还没有|忘记|忘了)[^,。]{0,4}?(?:上传|提供|发送|附)",
        r"(?:您的|你的|该|此|这个|这张|本|请求的|输入|输出|生成|上传)?[^,。]{0,4}?(?:内容|请求|图片|图像|输入|"
        r"提示词?|问题|文本|照片)[^,。的]{0,12}?(?:违反|违规|不符合|"
        r"涉及敏感|包含敏感|含有敏感|敏感|被拒绝|被拦截|被屏蔽|未通过|不合规|涉嫌|不适当|不当内容|被过滤|包含不|"
        r"含有不|涉及违)",
        r"(?:作为|我是|我只是)(?:一个|一款|一名|一种)?(?:人工智能|ai|语言模型|大模型|大语言模型|文本|智能助手|"
        r"虚拟助手)",
        r"(?:请问)?有什么[^,。]{0,6}?(?:可以|能|需要)[^,。]{0,4}?帮",
        r"(?:我们|咱们|让我们)?[^,。]{0,4}?(?:换个话题|换一个话题|聊点别的|聊聊别的|聊聊其他)|我还没有?学会|"
        r"(?:内容|描述)(?:不可用|已被屏蔽|已屏蔽|已删除)|"
        r"暂无(?:描述|内容|回答|结果)",
        r"(?:我|恕我)[^,。]{0,4}?(?:不知道该怎么|爱莫能助|无能为力|不能从命|拒绝回答|拒绝)",
        r"(?:已)?拒绝(?:回答|请求|服务|执行)|(?:请求|内容|回答)(?:已|被)[^,。]{0,4}?(?:拒绝|拦截|屏蔽|过滤|终止)",
    ),
    errors=(
        r"(?:\[?(?:错误|出错了?|异常|报错|发生(?:了)?(?:未知|内部|网络|系统|意外)?(?:的)?(?:错误|异常)|未知错误|"
        r"内部错误|程序异常)\]?)(?:[::!。,;.( ]|代码|信息|$|\d)",
        r"(?:[a-z]{0,5} ?)?(?:服务器?|系统|网络|请求|接口|服务|模型|调用|生成|处理|图片|图像|数据|连接|内部|推理|"
        r"上游|后端|网关|任务|参数|操作|响应|图片下载|账户|账号|api|"
        r"当前|下载|程序|内存|显存)[^,。::!]{0,10}?(?:错误|异常|失败|超时|繁忙|不可用|过载|中断|出错|维护|故障|"
        r"出现问题|拒绝|过大|过长|无响应|崩溃|不足|溢出|受限|无效|有误|不存在|"
        r"人数过多|断开|被重置)",
        r"(?:请|烦请)?(?:您)?稍[后候][^,。]{0,4}?(?:再试|重试|尝试)|请重试|请刷新",
        r"(?:您的|账户|账号|当前|api)?[^,。]{0,6}?(?:余额|配额|额度|次数|流量|积分)[^,。]{0,8}?(?:不足|用完|耗尽|"
        r"超|已达|上限|用尽)|(?:账户|账号)?(?:已)?欠费",
        r"(?:您的)?(?:请求|访问|操作|调用)(?:速度)?(?:过于|太|过)?(?:频繁|快)|[^,。]{0,8}?(?:超出|超过|达到)"
        r"[^,。]{0,14}?(?:限制|上限|长度|配额|限额|时间)|触发(?:了)?(?:限流|频率)",
        r"(?:加载|解析|上传|下载|连接|读取|解码|识别|生成|获取|登录|认证|鉴权|验证|提交|打开)(?:图片|文件|图像|"
        r"数据|模型|服务器|结果|响应)?(?:失败|超时|错误|出错)",
        r"(?:没有|无|缺少|权限)[^,。]{0,4}?(?:权限|不足|访问权)|(?:访问|连接)[^,。]{0,4}?(?:被拒绝|拒绝|受限|"
        r"被重置|超时)|"
        r"(?:api)? ?(?:密钥|令牌|token|key)[^,。]{0,4}?(?:无效|错误|过期|不正确|缺失)|无效的?[^,。]{0,8}?(?:密钥|"
        r"请求|参数|图片|令牌|响应)",
    ),
    meta=r"我|您|你|请|抱歉|对不起|政策|准则|规定|ai|隐私",
    quoted=(
        r"写着|写道|印着|上面写|说道|标语|字样|字条|便条|纸条|海报上|横幅|牌子|招牌|贴着|喊道|歌词|标题|封面|字幕|"
        r"对话框|台词|广告"
    ),
    depicted=(
        r"截图|屏幕|画面|海报|标志|标牌|告示|写着|显示着?|印着|照片[中里上]|图[中上]|图片(?:[中里]|上(?!传))|"
        r"(?<!换)一张|"
        r"一名|一位|"
        r"一个人|男子|女子|男孩|女孩|男人|女人|"
        r"展示|描绘|贴在|挂在|摆在|放在|立在|站在|坐在|旁边|窗口|终端|显示器|电脑|牌子|墙上|弹窗|一块|一台|一只|"
        r"漫画|插画"
    ),
    speaker=r"我|您|你|请|抱歉|对不起|遗憾",
    negation=r"不|没|无法|未|禁止|拒绝",
    service=(r"图|照片|内容|描述|回答|提供|识别|协助|帮|请求|问题|政策|规定|分析|上传|发送|回复|信息|处理|答复|服务"),
)

JAPANESE = Words(
    lead=(
        r"(?:(?:(?:大変|誠に|本当に)?(?:申し訳(?:ありません|ございません|ない(?:です|のですが))?|すみません|"
        r"すいません|恐れ入りますが?|"
        r"恐縮ですが|ごめんなさい|お手数ですが|失礼しました|お詫び(?:いた|申し上げ)[^。、]*)(?:が|けど|"
        r"けれど(?:も)?|ですが)?|残念ながら|あいにく(?:です|ながら|ですが)?|ただ|しかし|"
        r"(?:私は)?(?:ai|人工知能|言語モデル)[^、。]{0,20}(?:として|ですので|なので|のため|である(?:私)?(?:ため|"
        r"は)?)|[^、。,]{0,20}(?:のため|により|ですので|の観点から|上の理由(?:から|で|により)|に基づき))[、。,.! ]*)"
    ),
    refusals=(
        r"[^。]{0,50}?(?:お手伝い|ご協力|お答え|回答|対応|ご対応|お応え|説明|ご説明|描写|特定|識別|提供|処理|生成|"
        r"作成|表示|閲覧|確認|認識|分析|実行|お話|キャプション|コメント|判断|判別|"
        r"ご案内|返答|解析|記述|応じ|お見せ|支援|サポート|ご要望に沿|ご期待に沿)[^。]{0,14}?(?:できません|"
        r"出来ません|しません(?:。|$)|いたしません|できかね|いたしかね|致しかね|しかね|ることはできません|"
        r"られません|できない|していません|"
        r"しておりません|"
        r"ません(?:。|$)|お断り|控え|不可能)",
        r"[^。]{0,24}?(?:画像|写真|図|ファイル|イメージ|添付)[^。]{0,12}?(?:見る(?:こと)?(?:が|は)?(?:でき|出来)|"
        r"見ることは|見られません|見えません(?=でした|。|$)|見当たりません|添付されてい(?:ない|ません)|"
        r"提供されてい(?:ない|ません)|アップロードされてい(?:ない|ません)|受け取(?:って|れ)[^。]{0,6}(?:ません|"
        r"ない)|届いてい(?:ない|ません)|開けません|"
        r"ございません|がないよう|含まれていない|送信されてい|確認できま)",
        r"[^。]{0,20}?(?:画像|写真|ファイル)を[^。]{0,16}?(?:アップロード|添付|提供|送信|共有|お送り|送って|"
        r"貼り付け)[^。]{0,8}?(?:ください|下さい|いただ|もらえ|頂)",
        r"[^。]{0,24}?(?:リクエスト|要求|依頼|要望|内容|コンテンツ|画像|プロンプト|入力)[^。]{0,16}?(?:違反|拒否|"
        r"ブロック|却下|フィルタ|不適切|禁止|抵触|制限されてい)",
        r"(?:私は)?(?:ai|人工知能|言語モデル|大規模言語モデル|テキスト)[^。]{0,14}?(?:として|です|なので|であり|"
        r"のため|に過ぎ)",
        r"[^。]{0,8}?お力に(?:なれ|添え)|[^。]{0,12}?(?:何か|どのように|どのような|ご用件|何を)"
        r"[^。]{0,12}?(?:お手伝い|手伝|お力|助け|でしょうか)",
        r"(?:その|この|ご)[^。]{0,14}?(?:お断り|辞退|お受けでき|応じられ|応じることは)",
        r"[^。]{0,16}?(?:能力|機能|権限)(?:が|は)(?:ありません|ございません|備わっていません)",
    ),
    errors=(
        r"(?:【|\[)?エラー(?:】|\])?(?:[::。!( ]|が(?:発生|起き|生じ)|コード|$|\d|になり)",
        r"[^。]{0,14}?(?:サーバー?|内部|システム|ネットワーク|通信|予期(?:しない|せぬ)|予期しません|不明な|"
        r"リクエスト|要求|接続|処理|画像|読み込み|api|モデル|サービス|認証|ダウンロード|データ)[^。]{0,14}?"
        r"(?:エラー|失敗|タイムアウト|切断|混雑|混み合|利用できません|ご利用いただけません|拒否|ダウンして|"
        r"停止して|過負荷|応答しません|応答がありません|メンテナンス|中断|見つかりません|無効です|大きすぎ|長すぎ|"
        r"リセット|異常)",
        r"(?:タイムアウト|時間切れ)",
        r"[^。]{0,16}?(?:しばらく|後で|後ほど|のちほど|少し|時間)[^。]{0,14}?(?:再度|もう一度|再試行|お試し|やり直)",
        r"[^。]{0,16}?(?:上限|制限|限度|クォータ|クオータ|利用枠|回数)[^。]{0,8}?(?:達し|超え|超過|オーバー)|"
        r"[^。]{0,10}?(?:残高|クレジット|メモリ|容量)[^。]{0,4}?(?:不足|足りません)",
        r"[^。]{0,12}?(?:アクセス|権限)[^。]{0,6}?(?:拒否|ありません|禁止)|[^。]{0,10}?(?:api)"
        r"?キー[^。]{0,6}?(?:無効|正しくありません|間違|期限)",
        r"[^。]{0,6}?問題が発生しました|[^。]{0,10}?(?:うまくいきませんでした|失敗しました)",
    ),
    meta=(
        r"私|ください|下さい|お手伝い|いただ|ご[^。]{0,4}(?:ます|です)|申し訳|すみません|ai|ポリシー|規約|"
        r"ガイドライン|プライバシー|ません"
    ),
    quoted=(
        r"と書かれ|と書いて|という文字|の文字|看板|ポスター|貼り紙|張り紙|と言って|と叫|プラカード|歌詞|表紙|"
        r"吹き出し|セリフ|と記され|ステッカー|と印刷|横断幕|はがき|葉書"
    ),
    depicted=(
        r"スクリーンショット|画面|ポスター|看板|と書かれ|表示され(?:た|て)|表示する|表示して|イラスト|モニター|"
        r"端末|ターミナル|貼り紙|写って|男性|女性|少年|少女|漫画|描かれ|パソコン|ノート|"
        r"の写真|ディスプレイ|壁"
    ),
    speaker=(
        r"私|申し訳|すみません|ごめん|ください|下さい|いただ|頂|いたし|致し|残念|お(?:答|応|手|送|話|断|受)|"
        r"ご(?:依|要|質|案|協|了|遠)|控え"
    ),
    negation=r"ません|ない|できず|控え|不可|断り|かね",
    service=(r"画像|写真|回答|答え|説明|内容|依頼|質問|対応|提供|特定|処理|確認|要望|リクエスト|手伝|コンテンツ|情報"),
)

KOREAN = Words(
    lead=(
        r"(?:(?:(?:정말|대단히|매우)? ?(?:죄송|미안)[^,.]{0,12}?(?:합니다|하지만|해요|하게도|합니다만|하오나|"
        r"스럽지만)|유감스럽게도|유감이지만|안타깝게도|아쉽게도|사과[^,.]{0,10}|하지만|그러나|다만|"
        r"(?:저는 )?(?:ai|인공지능|언어 ?모델)[^,.]{0,20}(?:로서|이기 때문에|이므로|이라서)(?:는)?|"
        r"[^,.]{0,20}(?:때문에|으로 인해|에 따라|상의 이유로|를 위해|을 위해))[,. !]*)"
    ),
    refusals=(
        r"[^.]{0,60}?(?:도와|도움|설명|제공|처리|식별|생성|답변|응답|응할|묘사|분석|확인|판단|알려|수행|작성|만들|"
        r"대답|열|접근|지원|인식|이해|표시|논의|협조|도울|캡션|특정|언급|파악|공유|따를|볼|드릴|할)[^.]{0,14}?"
        r"(?:수(?:가|는)? 없(?:습니다|어요|음|네요|는 (?:내용|요청|질문|주제|점|것|사항|콘텐츠)|으며|다)|하기 "
        r"어렵|하기 어려운|드리기 어려운|드리기 어렵|"
        r"어렵습니다|지 않습니다|지 "
        r"못합니다|지 못했습니다|못 합니다|불가능합니다|불가합니다|할 수 없|거절|못해요|없습니다)",
        r"[^.]{0,20}?(?:이미지|사진|그림|파일|첨부 ?파일)(?:가|이|를|을|는|은)?[^.]{0,10}?(?:보이지 않|"
        r"첨부되(?:어 있)?지|전송되지|보내지지|첨부하지|업로드되지|업로드하지|제공되지|제공하지|받지 못|받지 않|"
        r"없는 것 같|찾을 수|"
        r"열 수|로드되지|볼 수|전달되지|"
        r"누락)",
        r"[^.]{0,20}?(?:이미지|사진|파일)(?:를|을)?[^.]{0,12}?(?:업로드|첨부|제공|공유|보내|올려)"
        r"[^.]{0,8}?(?:주세요|주시|바랍니다|주십시오|주실)",
        r"[^.]{0,12}?(?:무엇을|어떻게|어떤)[^.]{0,10}?도와",
        r"(?:저는 )?(?:ai|인공지능|언어 ?모델|대규모 언어|텍스트)[^.]{0,16}?(?:로서|입니다|이기|이므로|이에요|일 뿐)",
        r"[^.]{0,24}?(?:요청|콘텐츠|내용|이미지|프롬프트|입력)[^.]{0,20}?(?:위반|거부|차단|필터링|부적절|금지|"
        r"거절|민감)",
        r"[^.]{0,10}?(?:능력|기능|권한)(?:이|은|을)? (?:없|갖추|가지고 있지)",
    ),
    errors=(
        r"\[?(?:오류|에러)\]?(?:[:.!( ]|가 발생|$|\d|입니다|코드)",
        r"[^.]{0,14}?(?:서버|내부|네트워크|시스템|요청|연결|처리|이미지|api|알 수 없는|예기치|서비스|모델|인증|"
        r"접속|통신|다운로드|응답|데이터|게이트웨이|메모리)[^.]{0,16}?(?:오류|에러|실패|시간 ?초과|초과|과부하|"
        r"거부|끊|중단|사용할 수 없|이용할 수 없|"
        r"응답하지 않|점검|부족|찾을 수 없|잘못|지연|혼잡|유효하지)",
        r"(?:시간 ?초과|타임아웃)",
        r"[^.]{0,14}?(?:나중에|잠시|조금)[^.]{0,6}?(?:다시|재시도)",
        r"[^.]{0,14}?(?:한도|할당량|제한|쿼터|횟수|사용량)[^.]{0,8}?(?:초과|도달|소진)|[^.]{0,6}?(?:잔액|크레딧)"
        r"[^.]{0,4}?부족",
        r"[^.]{0,10}?(?:권한|접근|액세스)[^.]{0,6}?(?:없습니다|거부|금지|제한)|[^.]{0,8}?키(?:가|는)? "
        r"[^.]{0,4}?(?:유효하지|잘못|만료)|(?:너무 많은|과도한) 요청",
        r"[^.]{0,6}?문제가 발생|[^.]{0,16}?(?:실패했습니다|불러올 수 없|불러오지 못|로드할 수 없)",
    ),
    meta=(
        r"저는|제가|저의|주세요|주시|드리|도와|죄송|미안|정책|가이드라인|ai|개인정보|바랍니다|습니다만|없습니다|"
        r"해 ?주"
    ),
    quoted=(
        r"라고 (?:적힌|쓰인|쓰여|적혀|말하|외치|써)|문구|표지판|간판|포스터|현수막|글씨|글귀|쪽지|말풍선|"
        r"팻말|가사|표지|스티커|엽서|이라는 글|대사"
    ),
    depicted=(
        r"스크린샷|화면|포스터|표지판|간판|적힌|쓰여|적혀|쓰인|모니터|표시된|표시되|단말|남자|여자|소년|소녀|"
        r"노트북|그림|만화|벽에|컴퓨터|사진 속|사진입니다|찍은|터미널"
    ),
    speaker=r"저는|제가|저의|죄송|주세요|주십시오|드리|드릴|주시|유감|안타깝|바랍니다|양해|요청하신|해당",
    negation=r"없|않|못|어렵|거부|불가|제한",
    service=(r"이미지|사진|설명|도와|답변|요청|내용|제공|확인|식별|분석|콘텐츠|신원|응답|처리|안내|질문|정보"),
)

GERMAN = Words(
    lead=(
        r"(?:(?:hallo|danke[^,.]*|(?:es )?tut mir (?:sehr |wirklich |aufrichtig )?leid|leider|entschuldigung|"
        r"entschuldige?(?:n sie)?(?: bitte)?|ich bedau(?:e)?re(?: es)?|"
        r"ich bitte um entschuldigung|verzeihung|sorry|bedauerlicherweise|jedoch|aber|"
        r"als (?:ein |eine )?(?:ki|sprachmodell|ai|künstliche|text|großes|assistent|reines)[^,]*?(?=,| kann| bin| "
        r"habe| darf| ist| sehe)|aus (?:datenschutz|sicherheits|rechtlichen|ethischen)[^,]*?(?= kann| darf|,)|"
        r"aufgrund [^,]*?(?= kann| darf| ist|,)|derzeit|momentan|zurzeit)[,.:! \-]*(?:aber |dass |daß |doch )*)"
    ),
    refusals=(
        r"(?:(?:ich|wir|das modell|der assistent) (?:\w+ ){0,3}?(?:kann|können|darf|dürfen|werde|werden|bin|sind|"
        r"konnte|möchte|will|sehe|habe|haben|erkenne|verfüge|muss|finde|erhielt)|"
        r"(?:kann|können|darf|dürfen|werde|bin|sehe|habe|konnte|möchte|verfüge|muss|ist es|finde) (?:ich|wir|mir))"
        r"\b[^.;:]{0,90}?"
        r"(?:nicht|kein(?:e|en|em|er|es)?|außerstande|ablehnen|nicht in der lage|unmöglich)\b(?=[^.;:]*(?:helfen|"
        r"beschreib|identifizier|erkenn|beantwort|anzeig|sehen|verarbeit|erstell|unterstütz|"
        r"ansehen|öffnen|erfüllen|nachkommen|bereitstell|generier|analysier|zugreif|zugriff|bild|foto|anfrage|"
        r"wunsch|inhalt|auskunft|"
        r"fortfahren|diskutier|benenn|lage|behilflich|kommentier|antwort|erlaubt|befugt|möglich|fähig|datei|"
        r"anhang|personen|wiedergeben|betracht|tun))"
        r"|(?:ich|wir) (?:identifiziere|beschreibe|erkenne|erstelle|generiere|beantworte|kommentiere|bearbeite|"
        r"unterstütze|benenne)n?\b[^.;:]{0,40}?\b(?:nicht|keine?n?)\b"
        r"|(?:sie haben|du hast|sie hatten)[^.;:]{0,24}?(?:vergessen|kein|nicht)[^.;:]{0,30}?(?:bild|foto|datei|"
        r"anhang)"
        r"|(?:das|dies|diese[rns]?|die|der|den|solche) (?:\w+ ){0,2}?(?:kann|darf|werde|möchte) "
        r"ich[^.;:]{0,40}?\bnicht\b"
        r"|(?:ich|wir|das) (?:\w+ )?(?:muss|möchte|müssen)[^.;:]{0,60}?ablehnen"
        r"|(?:ich|wir) (?:kann|können|darf|werde|bin|konnte)[^.;:]{0,30}?(?:helfen|beschreib|zugriff|dienen|"
        r"weiterhelfen)[^.;:]{0,30}?nicht\b",
        r"(?:(?:es )?(?:wurde|ist|gibt|liegt|scheint)[^.]{0,20}?)?kein(?:e|en)?\b[^.]{0,20}?(?:bild|foto|anhang|"
        r"datei|bilddatei|grafik)\b[^.]{0,40}?(?:angehängt|hochgeladen|vorhanden|bereitgestellt|erhalten|gefunden|"
        r"beigefügt|übermittelt|vor$|"
        r"vor\b|mitgesendet|mitgeschickt|gesendet|sehen|zu beschreiben|verfügbar)",
        r"(?:(?:bitte|könnten sie|könntest du|kannst du) )+[^.]{0,12}?(?:lade|laden|sende|senden|schick|stell|"
        r"teile|teilen|füge|fügen)\w*[^.]{0,40}?(?:bild|foto|datei)",
        r"(?:wie|womit|wobei) kann ich (?:ihnen|dir|euch)[^?]{0,30}(?:helfen|behilflich|dienen)",
        r"(?:ihre?|deine?|diese[rs]?|der|die|das) (?:anfrage|inhalte?|bild|eingabe|prompt|anforderung|antwort)"
        r"\b[^.]{0,50}?(?:abgelehnt|blockiert|verstößt|verstoßen|gesperrt|nicht verarbeitet|gefiltert|"
        r"zurückgewiesen|nicht zulässig|unangemessen|nicht erlaubt|"
        r"richtlinien)",
        r"(?:das|dies|die beschreibung|eine beschreibung)[^.]{0,40}?(?:verstößt|verstoßen|widerspricht|verstieße)\b",
        r"(?:als|ich bin)(?: nur| lediglich)? (?:ein |eine )?(?:ki|sprachmodell|ai|künstliche intelligenz|"
        r"textbasiert|großes sprachmodell|reines)\w*\b",
        r"(?:das|dies|dabei|damit|hierbei|dazu)[^.]{0,12}? (?:kann|darf|möchte) ich\b[^.]{0,40}?nicht|dabei kann ich",
        r"keine (?:beschreibung|antwort|auskunft) (?:möglich|verfügbar)|(?:inhalt|anfrage|bild) (?:gesperrt|"
        r"abgelehnt|blockiert|nicht verfügbar)",
        r"(?:mir|uns) (?:ist|wurde|liegt|fehlt)[^.]{0,30}?(?:nicht möglich|kein|nicht erlaubt|nicht gestattet|"
        r"fähigkeit|möglichkeit|berechtigung)",
    ),
    errors=(
        r"(?:\w+er )?(?:server|netzwerk|verbindungs|system|anwendungs|laufzeit|api|http|zugriffs|"
        r"authentifizierungs|zeitüberschreitungs|verarbeitungs|lade)?-?fehler\b ?(?:$|[:.!,(\-]|beim|bei |code|\d|"
        r"aufgetreten|ist |im |in der|während|des )",
        r"(?:es ist |dabei ist |leider ist )?(?:ein|ein \w+|ein \w+ \w+)? ?(?:\w*fehler|problem) (?:ist )"
        r"?(?:aufgetreten|passiert|unterlaufen)",
        r"(?:bitte )?versuch(?:en|e)? (?:sie )?es[^.]{0,20}(?:erneut|noch ?einmal|nochmal|später|wieder)",
        r"zeitüberschreitung|zeitlimit|(?:die )?zeit[^.]{0,12}überschritten",
        r"(?:der |die |das |dieser |unser )?(?:\w+ )?(?:dienst|server|modell|service|system|api|schnittstelle|"
        r"gateway|anbieter)\b[^.]{0,40}?(?:nicht verfügbar|überlastet|nicht erreichbar|ausgelastet|antwortet "
        r"nicht|ausgefallen|gewartet|reagiert nicht|ausgefallen|offline|nicht gefunden)",
        r"(?:die )?(?:verbindung|anfrage|anforderung|generierung|verarbeitung|übertragung|authentifizierung|"
        r"anmeldung)\b[^.]{0,40}?(?:fehlgeschlagen|unterbrochen|abgelehnt|getrennt|abgebrochen|zurückgesetzt|"
        r"gescheitert|verloren|verweigert|abgelaufen|nicht hergestellt)",
        r"(?:ihr |das |die )?(?:kontingent|guthaben|quote|limit|ratenlimit|anfragelimit|tokenlimit|\w*limit|"
        r"kreditlimit|maximale \w+)\b[^.]{0,40}?(?:überschritten|aufgebraucht|erschöpft|erreicht|nicht "
        r"ausreichend|reicht nicht)|nicht genügend|unzureichend",
        r"zu viele anfragen|zugriff (?:verweigert|nicht erlaubt)|(?:der )?(?:ungültige[rs]?|falsche[rs]?|"
        r"fehlende[rs]?) (?:api|schlüssel|anfrage|bild|token|parameter|eingabe|datei)|(?:api-?)"
        r"?schlüssel[^.]{0,10}(?:ungültig|abgelaufen)",
        r"(?:das |die )?(?:bild|datei|seite|antwort|daten|ressource|modell)\b[^.]{0,12}?(?:konnte|konnten|kann)"
        r"[^.]{0,8}? nicht [^.]{0,12}?(?:geladen|verarbeitet|geöffnet|gelesen|gefunden|heruntergeladen|dekodiert|"
        r"abgerufen|erzeugt)|(?:nicht gefunden|interner serverfehler|etwas ist schief)",
    ),
    meta=(
        r"\b(?:ich|mir|mein\w*|ihnen|ihre?[rnms]?|dir|dein\w*|bitte|uns|richtlinien|leid|leider|anfrage|ki|"
        r"datenschutz|hilfe|helfen|gerne)\b"
    ),
    quoted=(
        r"\b(?:schreibt|steht (?:auf|in|an|da|dort)|sagt (?:der|die|das|ein)|liest man|geschrieben|gedruckt|"
        r"gesprüht|aufschrift|lautet|gemalt|schild|plakat|spruchband|"
        r"postkarte|zettel|titel|transparent|aufkleber|überschrift|liedtext|sprechblase|singt)\b"
    ),
    depicted=(
        r"\b(?:bildschirm\w*|screenshot\w*|monitor|terminal|poster|plakat|schild|laptop|fenster|dialogfeld|"
        r"meldung auf|foto (?:von|eines|einer)|bild (?:von|eines|einer)|aufnahme|zeigt|"
        r"mann|frau|junge|mädchen|hund|katze|gemälde|zeichnung|wand|tafel|steht (?:auf|in)|angezeigt (?:auf|wird)|"
        r"person|straße|display|karikatur|comic)\b"
    ),
    speaker=r"\b(?:ich|mir|mich|mein\w*|bitte|leid|leider|entschuldig\w+|ihnen|ihre?[rnms]?|wir|uns)\b",
    negation=(
        r"\b(?:nicht|kein\w*|nichts|unmöglich|verboten|untersagt|ablehn\w*|weiger\w*|außerstande|unleserlich|"
        r"verstößt)\b"
    ),
    service=(
        r"bild|foto|beschreib|anfrage|inhalt|angaben|helfen|hilfe|identifizier|auskunft|antwort|richtlinie|dazu|"
        r"analysier|kommentier|anzeig|hochlad|bearbeit|dabei|information"
    ),
)

FRENCH = Words(
    lead=(
        r"(?:(?:bonjour|merci[^,.]*|je suis (?:vraiment |sincèrement |profondément |sincerement )?(?:désolée?|"
        r"navrée?)|désolée?|navrée?|pardon|malheureusement|je regrette|excusez-moi|"
        r"(?:toutes )?mes excuses|je m'excuse|je vous prie de m'excuser|hélas|cependant|mais|toutefois|"
        r"en tant qu(?:e |')(?:ia|assistant|modèle|intelligence|un |une |grand)[^,]*|pour des raisons [^,]*|"
        r"conformément [^,]*|en raison [^,]*|actuellement|par respect [^,]*)[,.:! \-]*(?:mais |de |que )*)"
    ),
    refusals=(
        r"(?:je|nous|j'|il m'est|il ne m'est|ce modèle)\b[^.;:]{0,12}?(?:ne |n')[^.;:]{0,10}?(?:peux|puis|suis|"
        r"pouvons|vois|parviens|dispose|ai|saurais|pourrai|peut|souhaite|sais|possède|reçois|voyons|arrive|vais|"
        r"est|détecte|trouve)\b[^.;:]{0,90}?"
        r"(?:aider|assister|décrire|identifier|fournir|traiter|répondre|voir|accéder|générer|créer|analyser|"
        r"satisfaire|image|photo|demande|contenu|capacité|capable|mesure|autorisée?|accès|"
        r"reconnaître|visualiser|suite|afficher|continuer|discuter|commenter|produire|permis|possible|fichier|"
        r"pièce jointe|aide|faire cela|cela|légende|déterminer)",
        r"(?:je|nous) (?:dois|devons|suis (?:contraint|obligé|dans l'(?:impossibilité|incapacité)|incapable)|"
        r"refuse|décline|préfère ne)[^.;]{0,60}",
        r"il (?:m'est|nous est|est) (?:malheureusement |actuellement )?impossible (?:pour moi )?d",
        r"impossible (?:pour moi )?d(?:e |')(?:décrire|identifier|répondre|fournir|vous aider|voir|analyser|"
        r"générer|accéder)",
        r"(?:il semble qu[e']|il n'y a|on dirait|il semblerait)?[^.]{0,12}?(?:aucune?|pas d')\s?(?:image|photo|"
        r"pièce jointe|fichier)s?\b[^.]{0,30}?(?:fourni|joint|reçu|trouvé|téléchargé|n'a|n'est|à décrire|envoyé|"
        r"transmis|partagé|visible|disponible|dans votre)",
        r"(?:veuillez|merci de|pourriez-vous|pouvez-vous|peux-tu|n'hésitez pas à)[^.]{0,24}?(?:télécharger|"
        r"téléverser|fournir|envoyer|joindre|partager|importer|renvoyer)[^.]{0,24}?(?:image|photo|fichier)",
        r"(?:je|nous) (?:ne |n')(?:identifi|décri|fourni|génère|traite|répond|produi|commente|reconnai|discut|"
        r"crée)\w*",
        r"(?:comment|en quoi) puis-je (?:vous |t'|te )?(?:aider|assister|être)",
        r"(?:votre|cette|ce|la|l') ?(?:demande|requête|image|contenu|invite|message|réponse)"
        r"\b[^.]{0,45}?(?:bloqué|rejeté|refusé|enfreint|viole|contraire|inapproprié|filtré|ne respecte|n'est pas "
        r"conforme|contrevient|interdit|n'a pas (?:été|pu)|vide|à l'encontre|ne (?:peut|sera) (?:pas|"
        r"malheureusement))",
        r"(?:cela|ceci|c'est|ce) (?:va à l'encontre|viole|enfreint|contrevient|est contraire)[^.]{0,60}",
        r"(?:en tant qu(?:e |')|je (?:ne )?suis (?:qu')?(?:une? |un )?)(?:ia\b|assistant virtuel|modèle de "
        r"langage|intelligence artificielle|un modèle|grand modèle|simple modèle|une ia)",
        r"(?:vous n'avez|tu n'as)[^.]{0,14}?(?:fourni|joint|envoyé|téléchargé|partagé|téléversé)"
        r"[^.]{0,14}?(?:image|photo|fichier|pièce)",
        r"(?:contenu|demande|description|réponse) (?:bloquée?|refusée?|indisponible|non disponible|rejetée?|"
        r"filtrée?)|aucune (?:description|réponse) (?:disponible|possible)",
    ),
    errors=(
        r"(?:\w+ )?erreur\b ?(?:$|[:.!,(\-]|interne|du serveur|serveur|\d|lors|de (?:connexion|réseau|traitement|"
        r"serveur|communication|chargement|décodage|délai)|inconnue|inattendue|http|réseau|système|"
        r"d'authentification|d'api|fatale|critique|api)",
        r"une erreur\b[^.]{0,40}?(?:produite|survenue|est apparue|rencontrée)|(?:un )"
        r"?problème[^.]{0,20}?(?:produit|survenu)|quelque chose s'est mal",
        r"(?:veuillez )?réessaye[rz]?[^.]{0,24}?|merci de réessayer",
        r"(?:le )?délai[^.]{0,24}?(?:dépassé|expiré|écoulé)|temps d'attente dépassé|(?:le )"
        r"?temps[^.]{0,14}?(?:dépassé|écoulé)",
        r"(?:le |la |ce |cette |l')?(?:\w+ )?(?:service|serveur|modèle|api|système|passerelle|fournisseur)"
        r"\b[^.]{0,40}?(?:indisponible|surchargé|injoignable|ne répond|en maintenance|occupé|introuvable|"
        r"inaccessible|hors ligne|saturé)",
        r"(?:votre |le |la )?(?:quota|limite|crédit|solde|nombre maximal|plafond)\b[^.]{0,50}?(?:dépassé|atteint|"
        r"épuisé|insuffisant)|crédits? insuffisants?|solde insuffisant|mémoire insuffisante",
        r"trop de requêtes|accès (?:refusé|interdit|non autorisé)|(?:la )?clé (?:d')?(?:api )"
        r"?[^.]{0,14}?(?:invalide|incorrecte|expirée)|non autorisé|(?:requête|jeton|format d'image|paramètre|"
        r"image|réponse) (?:invalide|incorrecte?|non valide|trop (?:longue|grande|volumineuse))|mauvaise requête",
        r"(?:échec|impossible) (?:de |du |d'|lors )[^.]{0,24}?(?:chargement|connexion|requête|traitement|charger|"
        r"connecter|traiter|joindre|l'opération|génération|télécharg|ouvrir|lire|décodage|récupérer|"
        r"authentification|contacter)",
        r"(?:la |l')?(?:connexion|requête|opération|génération|session|demande)\b[^.]{0,24}?(?:interrompue|"
        r"refusée par le serveur|perdue|échoué|réinitialisée|expirée?|annulée|fermée|n'a pas abouti|a expiré)",
        r"(?:l')?(?:image|fichier|page|ressource)[^.]{0,12}?(?:n'a pas pu|n'ont pas pu|ne peut pas)[^.]{0,8}?être "
        r"(?:chargé|traité|lu|téléchargé|décodé|ouvert)|(?:page|ressource|modèle|fichier) (?:non trouvée?|"
        r"introuvable)",
    ),
    meta=(
        r"\b(?:je|j'|mon|ma|mes|moi|vous|votre|vos|me|m'|te|ton|veuillez|merci|désolée?|politique|règles|demande|"
        r"ia|confidentialité|aider)\b|\bj'"
    ),
    quoted=(
        r"\b(?:écrit (?:sur|en|à|au)|lit-on|peut-on lire|dit (?:le|la|un|une|l')|proclame|indique (?:le|la|un)|"
        r"inscription|imprimé|gravé|peint (?:sur|en)|note manuscrite|"
        r"pancarte|affiche|banderole|carte postale|titre|paroles|chante|slogan|panneau|autocollant|bulle|inscrit|"
        r"légende d'un)\b"
    ),
    depicted=(
        r"\b(?:écran|capture|moniteur|terminal|affiche|panneau|ordinateur|fenêtre|affichée? (?:sur|dans|en)|"
        r"montre|photo d|image d|peinture|dessin|homme|femme|garçon|fille|chien|mur|porte|"
        r"boîte de dialogue|pancarte|personne|rue|tableau|graffiti|bande dessinée)\b"
    ),
    speaker=(
        r"\bj'|\bm'|\b(?:je|me|moi|mon|ma|mes|nous|désolée?|navrée?|veuillez|merci de|vous|votre|malheureusement|"
        r"pourriez|regrette)\b"
    ),
    negation=r"\bn'|\b(?:ne|pas|aucune?|interdit\w*|impossible|refus\w*|incapable|illisible|enfreint|viole)\b",
    service=(
        r"\b(?:images?|photos?|décri\w+|demande|requête|contenu|aider|aide|identifi\w+|répond\w+|analys\w+|visage|"
        r"traiter|cela|ceci|envoy\w+|renvoy\w+|information\w*|fournir|commenter|assist\w+|règles|politique)\b"
    ),
)

SPANISH = Words(
    lead=(
        r"(?:(?:hola|gracias[^,.]*|lo siento(?: mucho)?|lo lamento(?: mucho)?|lamento[^,.]{0,30}|perdón|perdona|"
        r"perdone|disculpa|disculpe|disculpas|(?:mis|te pido|le pido) disculpas|lamentablemente|"
        r"desafortunadamente|por desgracia|desgraciadamente|me temo|pero|sin embargo|"
        r"como (?:una? )?(?:ia|asistente|modelo|inteligencia|gran)[^,]*|por (?:razones|motivos|cuestiones) [^,]*|"
        r"debido a [^,]*|de acuerdo con [^,]*|según [^,]*|actualmente|en este momento)[,.:! \-¡]*(?:pero |que |de "
        r"que )*)"
    ),
    refusals=(
        r"(?:yo |nosotros |este modelo )?no (?:me |te |le |nos )?(?:puedo|podemos|es posible|soy capaz|estoy|"
        r"tengo|veo|podré|voy a|logro|dispongo|se puede|he recibido|está permitido|está permitida|puede|"
        r"consigo|cuento|debo|recibí|detecto|encuentro|sé|seré)\b[^.;:]{0,90}?"
        r"(?:ayudar|describir|identificar|proporcionar|procesar|responder|ver\b|acceder|generar|crear|analizar|"
        r"cumplir|asistir|imagen|foto|solicitud|contenido|capacidad|capaz|acceso|petición|"
        r"reconocer|visualizar|continuar|autorizado|permitid|archivo|comentar|atender|mostrar|ayuda|hacer eso|"
        r"hacer esto|eso\b|determinar|ofrecer|realizar|abrir|posible|adjunto|seguir|discutir|acceda|describa)",
        r"(?:debo|tengo que|prefiero|necesito|he de) (?:declinar|rechazar|no |abstenerme|negarme)|(?:me niego|"
        r"rechazo|declino)",
        r"(?:me (?:es|resulta)|resulta|es) imposible (?:para mí )?(?:ayudar|describir|identificar|procesar|ver|"
        r"generar|proporcionar|cumplir|acceder)",
        r"(?:parece que |al parecer,? )?no (?:se |hay|has|ha|veo|encuentro|recibí|existe)[^.]{0,40}?(?:imagen|"
        r"imágenes|foto|archivo|adjunt)\w*[^.]{0,20}",
        r"ninguna? (?:imagen|foto|archivo)[^.]{0,30}?(?:adjunt|proporcionad|recibid|encontrad|subid|disponible)",
        r"(?:por favor,? |¿?podrías |¿?puedes |¿?podría )[^.]{0,8}?(?:sub|adjunt|proporci|compart|enví|envi|carg|"
        r"vuelv)\w*[^.]{0,24}?(?:imagen|foto|archivo)",
        r"no (?:identifico|describo|proporciono|genero|creo|respondo|proceso|reconozco|comento|discuto|produzco|"
        r"puedo$)\b",
        r"no (?:has|ha|se ha|han) (?:incluido|adjuntado|subido|enviado|proporcionado|compartido)"
        r"\b[^.]{0,30}(?:imagen|foto|archivo)",
        r"[¿]?(?:en qué|cómo) (?:te |le |os )?puedo (?:ayudar|asistir|servir)",
        r"(?:tu|su|esta|la|el|este) (?:solicitud|petición|imagen|contenido|mensaje|prompt|respuesta)"
        r"\b[^.]{0,45}?(?:rechazad|bloquead|infringe|viola|denegad|en contra|inapropiad|filtrad|no cumple|"
        r"incumple|prohibid|no se adjuntó|no está permitid|no puede ser|no pudo ser)",
        r"(?:eso|esto|ello|hacerlo) (?:va en contra|viola|infringe|incumple|iría en contra|contraviene)",
        r"(?:como|soy|solo soy|sólo soy) (?:solo |sólo |solamente )?(?:una? )?(?:ia\b|asistente (?:virtual|de)|"
        r"modelo de (?:lenguaje|texto)|inteligencia artificial|gran modelo)",
        r"(?:contenido|solicitud|descripción|respuesta) (?:bloquead|rechazad|denegad|no disponible|filtrad)|"
        r"(?:descripción|respuesta) no disponible",
    ),
    errors=(
        r"(?:\w+ )?error\b ?(?:interno|del (?:servidor|sistema|servicio|modelo)|de (?:red|conexión|servidor|"
        r"autenticación|procesamiento|"
        r"sistema|tiempo|carga|lectura|api)|al |inesperado|desconocido|en (?:la|el)|durante|fatal|crítico)",
        r"(?:ha ocurrido|se (?:ha )?produjo|se ha producido|ocurrió|hubo|ha habido|se presentó|surgió)"
        r"[^.]{0,20}?(?:error|problema|fallo|falla)|algo (?:salió|ha salido|fue) mal",
        r"(?:por favor,? )?(?:inténtel|inténtal|intente|intenta|vuelva a intentar|vuelve a intentar|reinten)\w*",
        r"(?:el |se )?(?:tiempo de espera|agotó el tiempo|tiempo límite)[^.]{0,20}?(?:agotad|excedid|superad|de "
        r"espera|expir|$)|se agotó el tiempo",
        r"(?:el |la |este |nuestro )?(?:\w+ )?(?:servicio|servidor|modelo|sistema|api|proveedor|puerta de enlace)"
        r"\b[^.]{0,45}?(?:no (?:está |se encuentra )?disponible|sobrecargad|saturad|ocupad|no responde|caído|en "
        r"mantenimiento|inaccesible|no encontrado|fuera de)",
        r"(?:tu |su |la |el |se ha )?(?:cuota|límite|crédito|saldo|número máximo|superado el límite|excedido)"
        r"\b[^.]{0,50}?(?:excedid|superad|alcanzad|agotad|insuficiente|sobrepasad|de)|(?:saldo|crédito|memoria|"
        r"créditos)[^.]{0,4}? ?insuficiente",
        r"demasiadas (?:solicitudes|peticiones)|acceso (?:denegado|no autorizado|prohibido)|(?:la )"
        r"?clave[^.]{0,15}(?:no (?:es )?válida|inválida|incorrecta|caducada)|(?:solicitud|imagen|parámetro|"
        r"formato|token|respuesta) (?:no válid|inválid|incorrect|demasiado)\w*|no autorizado|solicitud incorrecta",
        r"(?:la )?(?:conexión|solicitud|petición|operación|generación|sesión|tarea)\b[^.]{0,30}?(?:rechazada por "
        r"el servidor|interrumpida|perdida|fallid|falló|ha fallado|cancelada|restablecida|caducad|expirad|cerrada|"
        r"no se pudo|ha expirado|abortada)",
        r"no se (?:pudo|ha podido|pudieron|puede) (?:\w+ )?(?:cargar|procesar|conectar|obtener|completar|generar|"
        r"leer|descargar|abrir|establecer|decodificar|encontrar|contactar)|"
        r"(?:fallo|falló|falla) (?:en|la|al|de|el|del)|(?:página|recurso|modelo|archivo) no encontrad[oa]|"
        r"(?:imposible|error al) (?:conectar|cargar|procesar)",
    ),
    meta=(
        r"\b(?:yo|me|mi|mis|te|tu|usted|le|su|por favor|puedo|podría|ayudar\w*|ayuda|siento|lamento|política|"
        r"políticas|normas|solicitud|ia|privacidad|gracias|gustaría)\b"
    ),
    quoted=(
        r"\b(?:dice (?:la|el|un|una|su)|se lee|reza (?:el|la|un|una)|escrit[oa] (?:en|con|a|sobre)|impres[oa]|"
        r"pintad[oa] (?:en|con)|grabad[oa]|anuncia (?:el|la|un)|cartel|pancarta|letrero|postal|"
        r"título|canta|nota manuscrita|lema|eslogan|pegatina|bocadillo|portada|graffiti|grafiti|letra de)\b"
    ),
    depicted=(
        r"\b(?:pantalla|captura|monitor|terminal|cartel|letrero|ordenador|computadora|portátil|ventana|"
        r"mostrad[oa] en|muestra|foto de|imagen de|fotografía|pintura|dibujo|hombre|mujer|niño|niña|"
        r"perro|gato|pared|póster|cuadro de diálogo|persona|calle|pizarra|viñeta|en un|en una|sobre un|sobre una)\b"
    ),
    speaker=(
        r"\b(?:me|mi|mis|yo|siento|perdón|perdon[ae]|disculp\w+|por favor|lamento|lamentablemente|tu|usted|puedo|"
        r"tengo|soy|estoy|podría|debo|nuestr\w+)\b"
    ),
    negation=r"\b(?:no|ningun[ao]?|prohibid\w+|imposible|incapaz|niego|rechaz\w+|ilegible|infringe|viola|nunca)\b",
    service=(
        r"\b(?:imagen|imágenes|fotos?|describ\w+|solicitud|contenido|ayud\w+|identific\w+|respond\w+|analiz\w+|"
        r"proces\w+|persona|eso|esto|información|comentar|enviar|envíe|petición|políticas?|normas|asistir|archivo)\b"
    ),
)

RUSSIAN = Words(
    lead=(
        r"(?:(?:здравствуйте|спасибо[^,.]*|извините|извини|простите|прости|прошу прощения|прошу извинить|к "
        r"сожалению|сожалею|мне (?:очень |искренне )?жаль|приношу (?:свои |мои )?(?:глубокие |искренние )"
        r"?извинения|увы|похоже|кажется|видимо|"
        r"однако|но|как (?:ии|языковая|искусственный|ai|ассистент|нейросет|большая|модель|виртуальный|текстовая)"
        r"[^,]*|будучи [^,]*|по (?:соображениям|причинам|правилам) [^,]*?(?= я|,)|в соответствии [^,]*?(?= я|,)|"
        r"из соображений [^,]*?(?= я|,)|в данный момент|сейчас|в настоящее время|из-за [^,]*?(?= я|,))[,.:! "
        r"\-]*(?:но |что )*)"
    ),
    refusals=(
        r"(?:(?:я|мы|эта модель|модель|у меня|мне) (?:\w+ ){0,3}?)?не (?:могу|можем|смогу|в состоянии|вижу|имею|"
        r"способ\w+|"
        r"умею|буду|получил\w*|получен\w*|обладаю|вправе|готов\w*|нахожу|распознаю|удалось|поддерживаю|"
        r"располагаю|уполномочен\w*|видим|стану|может|смог\w*|имею возможности)\b[^.;:]{0,90}?"
        r"(?:помочь|помогать|описать|описывать|определить|предоставить|предоставлять|обработать|обрабатывать|"
        r"ответить|отвечать|\bвидеть|увидеть (?:изобр|фот|карт|прик|файл)|просм\w+|создать|создавать|"
        r"сгенерировать|генерировать|выполнить|изображени|фото|картин|запрос|"
        r"содержим|контент|доступ|возможност|идентифиц|распозна|анализ|продолжить|обсуждать|комментир|назвать|с "
        r"этим|файл|показать|вложени|сделать|открыть|опознать|помощ|это\b|дать|составить|удовлетворить)",
        r"(?:я |мы )?(?:вынужден\w*|должен|должна|предпочитаю|отказываюсь)[^.;]{0,30}?(?:отказ|отклон|воздерж|"
        r"описывать|выполнять|отвечать|помогать|обсуждать|не )",
        r"(?:похоже,?|кажется,?|видимо,?)?[^.]{0,12}?(?:изображени[ея]|фото\w*|картинк[аи]|файл|вложени[ея])"
        r"\b[^.]{0,25}?(?:не (?:было |был |была )?(?:прикреп|загру|предостав|получ|найден|прилож|отправ|удалось|"
        r"прилага)|отсутству)",
        r"(?:вы|ты) (?:\w+ )?(?:не|забыли) (?:\w+ )?(?:прикреп|загру|предостав|отправ|прилож|присла)",
        r"пожалуйста,? (?:\w+ )?(?:загруз|прикреп|отправ|предостав|пришл|подел)\w*[^.]{0,24}?(?:изображени|фото|"
        r"картин|файл)",
        r"(?:я |мы )?не (?:определяю|описываю|идентифицирую|предоставляю|распознаю|создаю|генерирую|обсуждаю|отвечаю|"
        r"комментирую|обрабатываю|выполняю)\b",
        r"(?:чем|как) (?:я )?(?:могу|вам|тебе) (?:я )?(?:вам |тебе )?(?:помочь|могу|помочь)",
        r"(?:ваш|этот|данный|эта|это|данное|ваше|запрошенн\w+)\b[^.]{0,8}?(?:запрос|контент|содержимое|"
        r"изображение|сообщение|просьба|ответ)\b[^.]{0,40}?(?:отклон|заблок|наруша|противореч|неприемлем|не "
        r"соответств|отфильтр|запрещ|не может быть|пуст)",
        r"(?:это|описание|такой|данное)[^.]{0,30}?(?:наруша|противореч|запрещ)\w*",
        r"(?:как|я)(?: всего лишь| только| —| -| лишь| просто)* ?(?:ии\b|языковая модель|искусственный интеллект|"
        r"текстов\w+ модель|большая языковая|виртуальный (?:ассистент|помощник)|нейросет\w+)",
        r"у меня (?:\w+ )?нет (?:\w+ )?(?:доступа|возможности|разрешения|изображ|способност|прав)",
        r"(?:мне|нам) (?:\w+ )?(?:не (?:разрешено|доступн|удалось|предоставл|был\w*)|запрещено|недоступ)",
        r"(?:описание|ответ|контент|содержимое|изображение) (?:недоступ\w+|заблокирован\w*|отсутству\w+|отклон\w+|"
        r"скрыт\w*|удал[её]н\w*)|в запросе отказано|запрос (?:отклон|заблок)\w+",
        r"невозможно (?:описать|определить|предоставить|обработать|ответить|выполнить|распознать)",
    ),
    errors=(
        r"(?:\w+ая )?ошибка\b ?(?:$|[:.!,(\-№]|сервера|сети|подключения|соединения|при |\d|обработки|загрузки|"
        r"запроса|api|http|в |авторизации|аутентификации|доступа|сервиса|чтения|генерации|декодирования|базы)",
        r"(?:произошла|возникла|случилась|обнаружена)[^.]{0,30}?ошибка|(?:произошёл|произошел|возник|случился)"
        r"[^.]{0,20}?(?:сбой|таймаут)|возникла проблема|что-то пошло не так|сбой\b ?(?:$|[:.!]|сервера|сети|"
        r"системы|при|в работе|соединения|подключения)",
        r"(?:пожалуйста,? )?(?:повторите|попробуйте|попытайтесь)[^.]{0,24}?(?:попытку|позже|позднее|снова|ещё раз|"
        r"еще раз|запрос)",
        r"(?:истекло|превышено|вышло)[^.]{0,10}?врем|врем[яе]\w*[^.]{0,25}?(?:истекло|вышло|превышен)|тайм-?аут",
        r"превышен\w*\b|(?:ваш )?(?:лимит|квота|баланс|кредит\w*)[^.]{0,25}?(?:превышен|исчерпан|достигнут|"
        r"недостаточ|израсходов|закончил)|достигнут[^.]{0,12}?(?:лимит|предел)",
        r"(?:этот |данный |наш )?(?:\w+ )?(?:сервис|сервер|модель|служба|система|шлюз|api|провайдер)"
        r"\b[^.]{0,40}?(?:недоступ|перегруж|не отвечает|занят|не найден|на обслуживании|выключен|упал)",
        r"слишком много запросов|доступ (?:\w+ )?(?:запрещ|закрыт|ограничен)\w*|в доступе отказано|недостаточно "
        r"(?:средств|памяти|прав|кредитов)|(?:неверн|недействительн|некорректн|отсутству|недопустим)\w+ (?:\w+[ "
        r"-])?(?:ключ|токен|запрос|изображени|формат|параметр|ответ)\w*",
        r"(?:не удалось|не удаётся|не удается) (?:\w+ )?(?:загруз|обработ|подключ|получ|выполн|откр|прочит|сгенер|"
        r"установ|соедин|декодир|"
        r"найти|заверш|связ|скач)\w*",
        r"(?:соединение|подключение|связь|запрос|сеанс|сессия|операция|задача|генерация)\b[^.]{0,24}?(?:разорван|"
        r"прерван|сброшен|потерян|отклонен\w* сервером|отклонено|истек|не выполнен|завершил\w+ (?:с )?ошибк|отмен|"
        r"закрыт|не удал)",
        r"(?:страница|файл|ресурс|изображение|модель) не (?:найден|существует|может быть (?:загруж|обработ|прочит|"
        r"открыт))\w*|внутренняя ошибка|нет (?:соединения|подключения|связи|ответа)",
    ),
    meta=(
        r"\b(?:я|мне|меня|мой|моих|мои|мы|вы|вас|вам|вашего|ваш|ваше|вашу|тебе|пожалуйста|извините|простите|"
        r"сожалению|правила|политик\w*|ии|конфиденциальн\w*|помочь)\b"
    ),
    quoted=(
        r"\b(?:гласит|написано|написал\w*|надпись|написанн\w+|говорит(?: \w+)? (?:открытка|плакат|вывеска|"
        r"табличка|записка)|напечатан\w*|плакат\w*|вывеск\w+|табличк\w+|открытк\w+|записк\w+|поёт|поет|"
        r"слоган|лозунг|баннер|наклейк\w+|обложк\w+|заголовок|граффити|сообщает (?:\w+ )?(?:вывеска|плакат|"
        r"табличка))\b"
    ),
    depicted=(
        r"\b(?:экран\w*|скриншот\w*|снимок|монитор\w*|терминал\w*|плакат\w*|вывеск\w+|табличк\w+|ноутбук\w*|"
        r"окн[оеа]\w*|показан\w*|изображ(?:ена|ён|ены|ено|ен)|мужчина|женщина|мальчик|девочка|собака|кошка|стен[еау]|"
        r"картин[аеы]|рисунок|человек|на фото|на фотографии|улиц\w+|доск[еа]|надпись|дисплей\w*)\b"
    ),
    speaker=r"\b(?:я|мне|меня|мой|мои|вы|вас|вам|ваш\w*|пожалуйста|извин\w+|прост(?:и|ите)|сожалени\w+|мы|нам)\b",
    negation=r"\b(?:не|нет|запрещ\w+|невозможн\w+|отказ\w+|нельзя|наруша\w+)\b",
    service=(
        r"изображ|фото|описа|описыв|запрос|контент|помоч|помощ|идентиф|ответ|отвеч|анализ|человек|содержим|"
        r"информац|коммент|отправ|загруз|политик|правил|файл"
    ),
)

LANGUAGES = (ENGLISH, CHINESE, JAPANESE, KOREAN, GERMAN, FRENCH, SPANISH, RUSSIAN)

MARKS = (
    r"\berrors?\b|\bfail\w*|\btim(?:ed|ing)[ -]?out\b|\btimeouts?\b|\bexceed\w*|\bquota\b|\brate.?limit\w*|"
    r"\binvalid\b|"
    r"\bunavailable\b|\boverload\w*|\bexceptions?\b|\bstatus\b|\bhttps?\b|\b[45]\d\d\b|\bapi\b|\bservers?\b|"
    r"\brequests?\b|"
    r"\bcuda\b|\btokens?\b|\bupstream\b|\bgateway\b|\bbackend\b|\bretr(?:y|ies|ying)\b|\btry again\b|\blater\b|"
    r"\bexhaust\w*|"
    r"\bresources?\b|\blimits?\b|\bdenied\b|\bunsupported\b|\bcredentials\b|\bauthenticat\w*|\bconnection\b|"
    r"\bsockets?\b|"
    r"\bjson\b|\bparse\b|\bresponse\b|\bmodel\b|\bservice\b|\btemporarily\b|\bcapacity\b|\bmemory\b|\baborted\b|"
    r"\bunexpected\b|"
    r"\binternal\b|\bmb\b|\bgpu\b|\bengine\b|\bdeadline\b|\bunknown\b|\bprovider\b|\bworkers?\b|\bcrash\w*|"
    r"\breturned\b|\bdisconnect\w*|\bclosed before\b|\bnot supported\b|\bthrottl\w*|\bcredits?\b|"
    r"\bbilling\b|"
    r"\bpayload\b",
    r"错误|异常|失败|超时|服务|请求|服务器|系统|接口|重试|再试|繁忙|限制|格式|不支持|网络|人数较多|排队|上限|模型|"
    r"配额|余额|无效|"
    r"参数|稍[后候]|过载|密钥|权限|数据|调用|连接|中断|拒绝|响应|过大|过长|频繁|内存|加载",
    r"エラー|サーバー?|リクエスト|タイムアウト|再試行|お試し|混雑|上限|制限|失敗|通信|接続|api|システム|利用でき|"
    r"サービス|モデル|"
    r"時間をおい|後ほど|無効|形式|対応していません|応答|メモリ|不足|負荷|超え|超過|停止|メンテナンス|認証|しばらく",
    r"오류|에러|서버|요청|초과|다시 시도|과부하|제한|한도|실패|네트워크|시스템|너무 많|서비스|모델|잠시 후|나중에|"
    r"유효하지|형식|"
    r"지원(?:되|하)지|응답|메모리|부족|연결|중단|점검|인증|사용할 수",
    r"\w*fehler\w*|\bserver\b|anfragen?\b|zeitüberschreitung|zu lange|überlastet|erneut|\w*limit\b|\bapi\b|"
    r"verbindung|"
    r"fehlgeschlagen|verfügbar|ungültig\w*|\bdienst\b|\bmodell\b|später|überschritten|erschöpft|speicher|\bformat\b|"
    r"nicht unterstützt|abgebrochen|authentifizierung",
    r"\berreur\b|\bserveur\b|requêtes?\b|\bdélai\b|surchargée?|réessay\w+|\blimite\b|\bapi\b|connexion|échou\w+|"
    r"échec|"
    r"indisponible|invalide|\bservice\b|\bmodèle\b|dépass\w+|plus tard|\bformat\b|pris en charge|mémoire|"
    r"\bquota\b|expiré|"
    r"atteinte?|débit|authentification|interne",
    r"\berror\b|\bservidor\b|solicitud\w*|tiempo de espera|saturad\w+|sobrecarg\w+|\w*intént\w+|\blímite\b|"
    r"\bapi\b|conexión|"
    r"\bfall[oó]\b|disponible|inválid\w+|\bservicio\b|\bmodelo\b|superad\w+|excedid\w+|más tarde|\bformato\b|"
    r"compatible|"
    r"memoria|cuota|agotad\w+|autenticación|interno",
    r"ошибк\w+|сервер\w*|запрос\w*|ожидани\w+|перегруж\w+|повторите|попробуйте|лимит\w*|предел\w*|\bapi\b|"
    r"соединени\w+|"
    r"не удалось|недоступ\w+|сервис\w*|модел[ьи]|превышен\w*|позже|формат\w*|не поддерживается|памят\w+|исчерпан\w*|"
    r"недействител\w+|истекло|внутренн\w+|достигнут\w*",
)
"""Technical words by language, English first."""
